"""Aligned photographs of faces at 64x64, on a laptop's CPU.

python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "faces"
    config.data.name = "image_folder"
    config.data.group = "(.*)_[0-9]+"  # AJ_Cook_0001.jpg: all images of a person in one split
    config.data.flip = True
    config.model.num_codes = 128
    config.quantizer.codebook_size = 8192
    config.quantizer.init_step = 2_200
    config.quantizer.noise = 0.25
    config.loss.perceptual = 1.0
    config.loss.perceptual_shift = 3
    config.train.steps = 4_000
    return with_variants(config, variants)
