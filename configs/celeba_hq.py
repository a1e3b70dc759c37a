"""CelebA-HQ at 256x256 (Karras et al. 2018, arXiv 1710.10196): 30,000 faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba_hq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/celeba_hq.py

N = 256 codes of K = 4,096 (log2 C(K, N) = 1,376 bits an image), for four times CelebA's pixels
twice its codes, at the same K = 16 N. FFHQ's model with 8 blocks on either side rather than 12 and
half the steps and batch: there are 24,000 training images.

Cost: 152.7 million parameters and 2.8 of the discriminator; 47 TFLOP a step, 53 once the
discriminator judges, and 3 of Muon's iterations, which the chips share. On 16 chips of TPU v5e that
is about 0.7 hours, an estimate from these flops at 35 % of 197 TFLOP/s a chip; `python -m
launch.plan --config=configs/celeba_hq.py --topology=v5e:4x4` computes flops, memory and traffic
with the TPU's compiler. Never yet run at full size.
Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import FACES_256, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = config.data.name = "celeba_hq"
    config.update_from_flattened_dict(FACES_256)
    config.update_from_flattened_dict(
        {
            "model.encoder_depth": 8,
            "model.decoder_depth": 8,
            "adversarial.start_step": 15_000,
            "train.steps": 50_000,
            "train.batch_size": 128,
        }
    )
    return with_variants(config, variants, smoke=SMOKE_RANDOM)
