"""CelebA at 128x128 (Liu et al. 2015, arXiv 1411.7766): 162,770 training faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba --source=DIR --size=128
    python -m pivq_jax.main --config=configs/celeba.py

N = 128 codes of K = 2,048: a latent has 16 entries to choose from, log2 C(K, N) = 686 bits an
image; D = 64 keeps an entry's neighbours apart where K is large. 256 patches of 8 pixels, a ViT of
width 512 and 8 blocks on either side.

Cost: 66.2 million parameters and 2.8 of the discriminator; 33 TFLOP a step, 36 once the
discriminator judges, and 0.9 of Muon's iterations, which the chips share. On 16 chips of TPU v5e
that is about 0.9 hours, an estimate from these flops at 35 % of 197 TFLOP/s a chip; `python -m
launch.plan --config=configs/celeba.py --topology=v5e:4x4` computes flops, memory and traffic with
the TPU's compiler. Never yet run at full size.
Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import ACCELERATOR, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = config.data.name = "celeba"
    config.update_from_flattened_dict(ACCELERATOR)
    config.update_from_flattened_dict(
        {
            "data.image_size": 128,
            "model.num_codes": 128,
            "model.width": 512,
            "model.heads": 8,
            "model.encoder_depth": 8,
            "model.set_depth": 2,
            "model.decoder_depth": 8,
            "model.output_channels": 64,
            "quantizer.codebook_size": 2048,
        }
    )
    return with_variants(config, variants, smoke=SMOKE_RANDOM)
