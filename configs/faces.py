"""Aligned photographs of faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=ALIGNED

The images of a person, whose names differ in their numbers alone, are in one split; for other names
change `data.group`. Each of the 64 patches has sixteen codes. The first stands for the cosine
transform of the patch plus what the encoder has learned to add to it in the first 1,000 steps, each
later one for what the codes before it left over (`model.stages`, docs/method.md): N = 1,024 of K =
32,768, at most 6,568 bits an image. Images are moved before LPIPS, which would otherwise not see a
grid of noise (docs/perceptual.md). Once there are codes, the decoder also learns to hide the seam
in recombined images (`loss.recombination`). New images take the patches on one side of a line from
a second parent, which is matched to the first one so that both are alike along a line. The trials
are in the logs of 29 and 30 November 2026 (docs/log).

Cost: 4.6 million parameters, 38 minutes of training on one core of an AMD EPYC with AVX-512, while
the other core is busy, with huge pages as the only setting of malloc (docs/training.md, "Memory on
a CPU"); evaluation takes some minutes more. Results on the 1,377 test images of the photographs
that docs/photographs.md names (three seeds, VGG16 features, k = 5): 34.9 dB, LPIPS 0.0082, FID of
reconstructions 0.0020; recombined images: FID 0.0052, precision 0.85, recall 0.68, density 0.98,
coverage 0.81, where training images have 0.0031, 0.86, 0.86, 0.83 and 0.86.

Variants: `:128px` (a trial at 128x128 with patches of 8 pixels: 1,200 steps, 35 minutes on one
core, 35.3 dB), `:smoke` (a check, no model), `:nearest`; also several, with commas.
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
    config.model.num_codes = 1024
    config.model.stages = 16  # of each of the 64 patches, which are the latents
    config.model.latents = "patches"
    config.model.code_dim = 64
    config.model.set_depth = 0
    config.model.local_output = True
    config.quantizer.codebook_size = 32_768
    config.quantizer.init_step = 1_000
    config.loss.perceptual = 1.0
    config.loss.perceptual_shift = 3
    config.loss.recombination = 1.0
    config.loss.variance = 0.0
    config.train.steps = 7_000
    config.train.checkpoint_every = 1_400  # none while the codebook starts, which takes minutes
    config.sample.nearest_of = 10_000
    config.prior.width = 192
    config.prior.depth = 4
    config.prior.heads = 3
    config.prior.steps = 2_500
    config.prior.batch_size = 32
    config.prior.learning_rate = 2e-3
    larger = {
        "data.image_size": 128,
        "model.num_codes": 2_048,
        "model.stages": 8,
        "model.local_output": False,
        "model.output_channels": 64,
        "quantizer.codebook_size": 65_536,
        "quantizer.init_step": 300,
        "quantizer.init_batches": 4,
        "train.steps": 1_200,
    }
    patches = 256 if "128px" in variants else 64
    smoke = {
        "model.num_codes": 2 * patches,
        "model.stages": 2,
        "model.set_depth": 0,
        "quantizer.codebook_size": 8 * patches,
    }
    return with_variants(config, variants, {"128px": larger, "smoke": smoke})
