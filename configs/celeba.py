"""CelebA at 128x128 (Liu et al. 2015, arXiv 1411.7766): 162,770 training faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba --source=DIR --size=128
    python -m pivq_jax.main --config=configs/celeba.py

N = 128 codes of K = 2,048, i.e. 16 entries per latent and log2 C(K, N) = 686 bits per image; D = 64
keeps neighbouring entries apart for large K. Encoder and decoder are ViTs of width 512 with 8
blocks, on 256 patches of 8 x 8 pixels.

Cost: 66.2 million parameters and 2.8 million of the discriminator; 33 TFLOP per step, 36 in the
adversarial phase, and 0.9 for Muon's iterations, which are distributed over the chips. The hours
of a training on a slice are those that the TPU's compiler estimates, with flops, memory and
communication: `python -m launch.plan --config=configs/celeba.py --topology=v5e:4x4` prints about
1.3 at best and 3.7 to plan with. This config has not been run at full size yet.

The loss on recombined sets is off, as it has not been tried on photographs of faces. With drawn
faces it keeps samples whole (docs/log/2026-11-27-rehearsal.md), so try
`--config.loss.recombination=0.5`: a fifth more work, and at least two images per device. A linear
layer for each patch (`model.local_output`), which made drawn faces sharp, is off for the same
reason; it would add 25 million parameters.

Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import ACCELERATOR, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "celeba"
    config.update_from_flattened_dict(ACCELERATOR)
    config.update_from_flattened_dict(
        {
            "data.image_size": 128,
            "model.num_codes": 2048,
            "model.stages": 8,  # of each of the 256 patches, which are the latents
            "model.code_dim": 64,
            "model.width": 512,
            "model.heads": 8,
            "model.encoder_depth": 8,
            "model.decoder_depth": 8,
            "model.output_channels": 64,
            "quantizer.codebook_size": 65_536,
        }
    )
    return with_variants(config, variants, smoke=SMOKE_RANDOM)
