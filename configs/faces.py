"""Aligned photographs of faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED

The images of a person, whose names differ in their numbers alone, are in one split; for other names
change `data.group`. docs/photographs.md says where photographs are. The model and its variants are
those of configs/portraits.py, with N = 150 codes, each one of 256 entries of its latent.

Variants: `:queries` (latents of an encoder that learns), `:128px` (at 128x128, with patches of 16
pixels), `:smoke` (a check, no model), `:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import COMPONENTS, FACES_64, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "faces"
    config.data.name = "image_folder"
    config.data.group = "(.*)_[0-9]+"  # AJ_Cook_0001.jpg: all images of a person in one split
    config.update_from_flattened_dict(
        {
            **COMPONENTS,
            "model.num_codes": 150,
            "quantizer.codebook_size": 38_400,
            "adversarial.recombined_weight": 0.08,
            "optimizer.warmup": 0.03,
            "train.steps": 3_500,
        }
    )
    return with_variants(config, variants, FACES_64)
