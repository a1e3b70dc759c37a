"""FFHQ at 256x256 (Karras et al. 2019, arXiv 1812.04948): 60,000 training faces, no attributes.

    python -m pivq_jax.data.prepare --dataset=ffhq --source=DIR --size=256
    python -m pivq_jax.main --config=configs/ffhq.py

N = 256 codes of K = 4,096 (log2 C(K, N) = 1,376 bits per image), twice the codes of CelebA for four
times as many pixels, with K = 16 N as there. Encoder and decoder are ViTs of width 768 with 12
blocks, on 256 patches of 16 x 16 pixels.

Cost: 218.8 million parameters and 2.8 million of the discriminator; 135 TFLOP per step, 147 in the
adversarial phase, and 4 for Muon's iterations, which are distributed over the chips. The hours of a
training on a slice are those that the TPU's compiler estimates, with flops, memory and
communication: `python -m launch.plan --config=configs/ffhq.py --topology=v5e:4x4` prints about
4.1 at best and 11.8 to plan with. This config has not been run at full size yet.

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
    config.name = config.data.name = "ffhq"
    config.update_from_flattened_dict(FACES_256)
    return with_variants(config, variants, smoke=SMOKE_RANDOM)
