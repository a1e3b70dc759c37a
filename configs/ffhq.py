"""FFHQ at 256x256 (Karras et al. 2019, arXiv 1812.04948): 60,000 training faces, no attributes.

    python -m pivq_jax.data.prepare --dataset=ffhq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/ffhq.py

The recipe of learned queries for 256 pixels, with more codes and larger networks: ViTs of width
768 with 12 blocks each. `python -m launch.plan --config=configs/ffhq.py --topology=v5e:4x4` prints
the TPU compiler's estimates of the hours of a training on a slice, and of the flops, memory and
communication of a step. This config has not been run at full size yet.

Variants: `:smoke` (random images of this size and a tiny model, minutes on a CPU), `:nearest`,
`:positional`; also several, with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import FACES_256, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "ffhq"
    config.update_from_flattened_dict(FACES_256)
    return with_variants(config, variants, {"smoke": SMOKE_RANDOM})
