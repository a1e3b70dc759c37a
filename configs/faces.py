"""Aligned photographs of faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED

The images of a person, whose names differ in their numbers alone, are in one split; for other names
change `data.group`. N = 256 codes of K = 8,192, four from each of 64 patches, are at most 1,638
bits an image: patches learn faster than queries, and leave nothing for a block over the set to do
(docs/log/2026-11-28-faces.md). Noise on the latents, 0.9, tells the encoder from the first step how
little the 32 entries for each latent can say, so that PSNR does not drop when the codebook starts,
as late as at three quarters of the steps (docs/training.md, "Noise before the codebook"). Images
are moved before LPIPS, which would otherwise not see a grid of noise (docs/perceptual.md). New
images have parents that resemble each other, the nearest of 64 (docs/method.md).

Cost: 2.9 million parameters, 55 minutes of training on one core of an AMD EPYC without AVX-512, the
other one busy, with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the command (docs/training.md,
"Memory on a CPU"); ten minutes of evaluation follow. On the 1,377 test images of the photographs
that docs/data.md names (seed 0, VGG16 features, k = 5): 26.1 dB, LPIPS 0.041, FID of
reconstructions 0.0080; recombined images: FID 0.0116, precision 0.82, recall 0.22, density 0.90,
coverage 0.65, where training images have 0.0031, 0.86, 0.86, 0.83 and 0.86. So new faces are as
dense as real ones, but cover less of what there is.

Variants: `:smoke` (a check, no model), `:nearest`, `:positional`; several with commas.
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
    config.train.steps = 6_600
    config.train.checkpoint_every = 2_500  # one before the codebook, as each there takes a k-means
    config.sample.nearest_of = 64
    return with_variants(config, variants, smoke={"quantizer.codebook_size": 512})
