"""CelebA-HQ at 256x256 (Karras et al. 2018, arXiv 1710.10196): 30,000 faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba_hq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/celeba_hq.py

The recipe of configs/faces.py, which was measured on photographs of faces, for 256 pixels: each of
the 256 patches of 16 x 16 pixels has sixteen codes (`model.stages`) for 64 numbers, N = 4,096 of K
= 131,072 in all, at most 26,289 bits an image. Encoder and decoder are ViTs of width 768 with 8
blocks. Steps and batch are half of those of FFHQ, as there are only 24,000 training images. Parents
of new images are matched out of 10,000 training images. There is no discriminator, as none improved
samples of faces (docs/log/2026-11-28-faces.md).

Cost: 135.9 million parameters. For the hours of a training on a slice and the flops, memory and
communication of a step, `python -m launch.plan --config=configs/celeba_hq.py --topology=v5e:4x4`
prints the estimates of the TPU's compiler. This config has not been run at full size yet; a small
model with the same patches was trained on 12,917 faces at 128 pixels
(docs/log/2026-11-29-parents.md). Recombination in training needs two images per device.

Variants: `:smoke` (random images of this size and a tiny model, minutes on a CPU), `:nearest`;
`:smoke,nearest` for both.
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
            "model.encoder_depth": 8,
            "model.decoder_depth": 8,
            "quantizer.init_batches": 8,
            "train.steps": 50_000,
            "train.batch_size": 128,
        }
    )
    return with_variants(config, variants, {"smoke": SMOKE_RANDOM})
