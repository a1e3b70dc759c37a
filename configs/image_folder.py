"""Your own aligned images: any tree of PNG, JPEG, WebP, ... files of any size.

    python -m pivq_jax.main --config=configs/image_folder.py --config.data.path=DIR

The central square of each image is resized to 64x64 once and cached. Images are split 80/10/10 into
training, validation and test images by a hash of their names. Unreadable files are reported and
skipped. The settings are a start for images of any kind; those of `configs/faces.py` were chosen
for photographs of faces, those of `configs/toon_faces.py` for drawings of one style. The size of
the model is the default, for laptops; `configs/ffhq.py` is a start for a GPU or TPU. The loss on
recombined sets is for images of one kind, such as faces; if yours are of several kinds, try
`--config.loss.recombination=0` (docs/trials.md). If all images show the same parts at the same
pixels, as drawings may, try `--config.model.output=patch --config.model.local_output=True`.
Quantization begins after a tenth of the steps, without noise before it; the later start and the
noise of docs/training.md were chosen on aligned faces. docs/own_images.md says which settings suit
which images.

Variants: `:smoke` (a check, no model), `:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "image_folder"
    config.data.name = "image_folder"
    config.loss.l2 = 0.5
    config.loss.recombination = 0.5
    return with_variants(config, variants)
