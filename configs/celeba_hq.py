"""CelebA-HQ at 256x256 (Karras et al. 2018, arXiv 1710.10196): 30,000 faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba_hq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/celeba_hq.py

N = 256 codes of K = 4,096 (log2 C(K, N) = 1,376 bits per image), twice the codes of CelebA for four
times as many pixels, with K = 16 N as there. The model is that of FFHQ with 8 instead of 12 blocks
in encoder and decoder. Steps and batch are half of those of FFHQ, as there are only 24,000 training
images.

Cost: 152.7 million parameters and 2.8 million of the discriminator; 47 TFLOP per step, 53 in the
adversarial phase, and 3 for Muon's iterations, which are distributed over the chips. The hours of a
training on a slice are those that the TPU's compiler estimates, with flops, memory and
communication: `python -m launch.plan --config=configs/celeba_hq.py --topology=v5e:4x4` prints them.
This config has not been run at full size yet.

The loss on recombined sets is off, as it has not been tried on photographs of faces. With drawn
faces it keeps samples whole (docs/log/2026-11-27-rehearsal.md), so try
`--config.loss.recombination=0.5`: a fifth more work, and at least two images per device. A linear
layer for each patch (`model.local_output`), which made drawn faces sharp, is off for the same
reason; it would add 151 million parameters.

Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import FACES_256, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "celeba_hq"
    config.update_from_flattened_dict(FACES_256)
    config.update_from_flattened_dict(
        {
            "model.encoder_depth": 8,
            "model.decoder_depth": 8,
            "quantizer.init_batches": 8,
            "train.steps": 50_000,
            "train.batch_size": 128,
        }
    )
    return with_variants(config, variants, smoke=SMOKE_RANDOM)
