"""FFHQ at 256x256 (Karras et al. 2019, arXiv 1812.04948): 60,000 training faces, no attributes.

    python -m pivq_jax.data.prepare --dataset=ffhq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/ffhq.py

The recipe of configs/faces.py, which was measured on photographs of faces, for 256 pixels: each of
the 256 patches of 16 x 16 pixels has sixteen codes (`model.stages`) for 64 numbers, N = 4,096 of K
= 131,072 in all, at most 26,289 bits an image. Encoder and decoder are ViTs of width 768 with 12
blocks. Parents of new images are matched out of 10,000 training images. There is no discriminator,
as none improved samples of faces (docs/log/2026-11-28-faces.md).

Cost: 192.6 million parameters. `python -m launch.plan --config=configs/ffhq.py --topology=v5e:4x4`
prints the TPU compiler's estimates of the hours of a training on a slice, and of the flops, memory
and communication of a step. This config has not been run at full size yet; a small model with the
same patches was trained on 12,917 faces at 128 pixels (docs/log/2026-11-29-parents.md).
Recombination in training needs two images per device.

Variants: `:smoke` (random images of this size and a tiny model, minutes on a CPU), `:nearest`;
`:smoke,nearest` for both.
"""

from ml_collections import ConfigDict

from pivq_jax.config import FACES_256, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "ffhq"
    config.update_from_flattened_dict(FACES_256)
    return with_variants(config, variants, {"smoke": SMOKE_RANDOM})
