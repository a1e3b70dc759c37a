"""Aligned photographs of faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED

The images of a person, whose names differ in their numbers alone, are in one split; for other names
change `data.group`. N = 128 codes of K = 8,192 are at most 946 bits an image. Noise on the latents
is as large as the error that 64 entries for each query leave, 0.4, and half of the steps have no
codebook (docs/training.md, "Noise before the codebook"). Images are moved before LPIPS, which would
otherwise not see a grid of noise (docs/perceptual.md).

Cost: 1.5 million parameters, 51 minutes of training on one core of an AMD EPYC without AVX-512,
with the other core busy. On the 1,377 test images of the photographs that docs/data.md names (seed
0, VGG16 features, k = 5): 24.6 dB, LPIPS 0.052, FID of reconstructions 0.0093; recombined images:
FID 0.0143, precision 0.74, recall 0.22, density 0.60, coverage 0.51, where training images have
0.0031, 0.86, 0.86, 0.83 and 0.86. So new faces are plausible, but not yet like real ones.

Variants: `:smoke` (a minute), `:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "faces"
    config.data.name = "image_folder"
    config.data.group = "(.*)_[0-9]+"  # AJ_Cook_0001.jpg: all images of a person in one split
    config.data.flip = True
    config.model.num_codes = 256
    config.model.latents = "patches"  # four from each of the 64
    config.model.set_depth = 0
    config.model.local_output = True
    config.quantizer.codebook_size = 8192
    config.quantizer.init_step = 4_800
    config.quantizer.init_batches = 32
    config.quantizer.noise = 0.9
    config.loss.perceptual = 1.0
    config.loss.perceptual_shift = 3
    config.optimizer.learning_rate = 7.5e-4
    config.optimizer.muon_learning_rate = 3e-3
    config.train.steps = 6_600
    config.train.checkpoint_every = 2_400  # before there is a codebook, each takes a k-means
    config.sample.nearest_of = 64
    return with_variants(config, variants)
