"""FFHQ at 256x256 (Karras et al. 2019, arXiv 1812.04948): 60,000 training faces, no attributes.

    python -m pivq_jax.data.prepare --dataset=ffhq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/ffhq.py

N = 256 codes of K = 4,096 (log2 C(K, N) = 1,376 bits an image), for four times CelebA's pixels
twice its codes, at the same K = 16 N. 256 patches of 16 pixels, a ViT of width 768 and 12 blocks on
either side.

Cost: 218.8 million parameters and 2.8 of the discriminator; 135 TFLOP a step, 147 once the
discriminator judges, and 4 of Muon's iterations, which the chips share. On 16 chips of TPU v5e that
is about 3.7 hours, an estimate from these flops at 35 % of 197 TFLOP/s a chip; `python -m
launch.plan --config=configs/ffhq.py --topology=v5e:4x4` computes flops, memory and traffic with the
TPU's compiler. Never yet run at full size.
Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import FACES_256, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = config.data.name = "ffhq"
    config.update_from_flattened_dict(FACES_256)
    return with_variants(config, variants, smoke=SMOKE_RANDOM)
