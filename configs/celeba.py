"""CelebA at 128x128 (Liu et al. 2015, arXiv 1411.7766): 162,770 training faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba --source=DIR --size=128
    python -m pivq_jax.main --config=configs/celeba.py

The recipe of learned queries for 128 pixels, with more codes and larger networks: ViTs of width
512 with 8 blocks each. `python -m launch.plan --config=configs/celeba.py --topology=v5e:4x4` prints
the TPU compiler's estimates of the hours of a training on a slice, and of the flops, memory and
communication of a step. This config has not been run at full size yet.

Variants: `:smoke` (random images of this size and a tiny model, minutes on a CPU), `:nearest`,
`:positional`; also several, with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import ACCELERATOR, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "celeba"
    config.update_from_flattened_dict(
        {
            **ACCELERATOR,
            "data.image_size": 128,
            "model.width": 512,
            "model.heads": 8,
            "model.encoder_depth": 8,
            "model.decoder_depth": 8,
            "model.output_channels": 64,
        }
    )
    return with_variants(config, variants, {"smoke": SMOKE_RANDOM})
