"""Aligned photographs of faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED

The images of a person, whose names differ in their numbers alone, are in one split; for other names
change `data.group`. N = 512 codes of K = 16,384, eight from each of 64 patches, are at most 3,281
bits an image: patches learn faster than queries, and leave nothing for a block over the set to do
(docs/log/2026-11-28-faces.md). Noise on the latents, 0.9, tells the encoder from the first step how
little the 32 entries for each latent can say, so that PSNR hardly drops when the codebook starts,
as late as at three quarters of the steps (docs/training.md, "Noise before the codebook"). Images
are moved before LPIPS, which would otherwise not see a grid of noise (docs/perceptual.md). New
images have parents that resemble each other, the nearest of 64 (docs/method.md).

Cost: 3.2 million parameters, 45 minutes of training on one core of an AMD EPYC with AVX-512, the
other one busy, with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the command (docs/training.md,
"Memory on a CPU"); twelve minutes of evaluation follow. On the 1,377 test images of
the photographs that docs/data.md names (seed 0, VGG16 features, k = 5): 27.1 dB, LPIPS 0.034, FID
of reconstructions 0.0068; recombined images: FID 0.0108, precision 0.86, recall 0.25, density 1.05,
coverage 0.68, where training images have 0.0031, 0.86, 0.86, 0.83 and 0.86. So new faces are denser
than real ones, but cover less of what there is. With N = 256 and K = 8,192 there were 26.1 dB,
LPIPS 0.041 and a coverage of 0.65.

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
    config.model.num_codes = 512
    config.model.stages = 8  # of each of the 64 patches, which are the latents
    config.model.latents = "patches"
    config.model.code_dim = 64
    config.model.set_depth = 0
    config.model.local_output = True
    config.quantizer.codebook_size = 16_384
    config.quantizer.init_step = 11_000
    config.quantizer.init_batches = 24
    config.quantizer.noise = 0.7
    config.loss.perceptual = 1.0
    config.loss.perceptual_shift = 3
    config.train.steps = 14_000
    config.train.checkpoint_every = 4_000  # few before the codebook, as each there takes a k-means
    config.sample.nearest_of = 64
    return with_variants(
        config, variants, smoke={"model.num_codes": 128, "quantizer.codebook_size": 512}
    )
