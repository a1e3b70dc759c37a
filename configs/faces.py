"""Aligned photographs of faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED

The images of a person, whose names differ in their numbers alone, are in one split; for other names
change `data.group`. docs/photographs.md says where photographs are. Images are moved before LPIPS,
which would otherwise not see a grid of noise (docs/perceptual.md).

Variants: `:128px` (a trial at 128x128), `:smoke` (a check, no model), `:nearest`, `:positional`;
also several, with commas.
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
    config.model.width = 160
    config.model.encoder_depth = 3
    config.model.decoder_depth = 3
    config.quantizer.codebook_size = 8_192
    config.quantizer.init_at = 0.647
    config.quantizer.noise = 0.4
    config.loss.perceptual = 1.0
    config.loss.perceptual_shift = 3
    config.optimizer.warmup = 0.0588
    config.train.steps = 3_400
    own = {
        "128px": {"data.image_size": 128, "model.output_channels": 64},
        "smoke": {"model.num_codes": 32, "quantizer.codebook_size": 512},
    }
    return with_variants(config, variants, own)
