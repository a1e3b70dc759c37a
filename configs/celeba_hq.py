"""CelebA-HQ at 256x256 (Karras et al. 2018, arXiv 1710.10196): 30,000 faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba_hq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/celeba_hq.py

The recipe of learned queries for 256 pixels, with more codes and larger networks: ViTs of width
768 with 12 blocks each. Steps and batch are half of those of FFHQ, as there are only 24,000
training images. `python -m launch.plan --config=configs/celeba_hq.py --topology=v5e:4x4` prints the
TPU compiler's estimates of the hours of a training on a slice, and of the flops, memory and
communication of a step. This config has not been run at full size yet.

Variants: `:smoke` (random images of this size and a tiny model, minutes on a CPU), `:nearest`,
`:positional`; also several, with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import FACES_256, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "celeba_hq"
    config.update_from_flattened_dict(
        {
            **FACES_256,
            "optimizer.warmup": 0.02,
            "train.steps": 50_000,
            "train.batch_size": 128,
        }
    )
    return with_variants(config, variants, {"smoke": SMOKE_RANDOM})
