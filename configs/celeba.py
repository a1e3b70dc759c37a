"""CelebA at 128x128 (Liu et al. 2015, arXiv 1411.7766): 162,770 training faces, 40 attributes.

    python -m pivq_jax.data.prepare --dataset=celeba --source=DIR --size=128
    python -m pivq_jax.main --config=configs/celeba.py

The recipe of configs/faces.py, which was measured on photographs of faces, for 128 pixels: each of
the 256 patches of 8 x 8 pixels has eight codes (`model.stages`), N = 2,048 of K = 65,536 in all, at
most 13,141 bits an image. Encoder and decoder are ViTs of width 512 with 8 blocks. Parents of new
images are matched out of 10,000 training images. There is no discriminator, as none improved
samples of faces (docs/log/2026-11-28-faces.md).

Cost: 55.5 million parameters. `python -m launch.plan --config=configs/celeba.py --topology=v5e:4x4`
prints the TPU compiler's estimates of the hours of a training on a slice, and of the flops, memory
and communication of a step. This config has not been run at full size yet; a small model with the
same patches and stages was trained on 10,263 photographs at 128 pixels, and compared with the
recipe from before there were stages (docs/log/2026-11-29-scale.md). Recombination in training needs
two images per device.

Variants: `:smoke` (random images of this size and a tiny model, minutes on a CPU), `:nearest`;
`:smoke,nearest` for both.
"""

from ml_collections import ConfigDict

from pivq_jax.config import ACCELERATOR, SMOKE_RANDOM, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = config.data.name = "celeba"
    config.update_from_flattened_dict(
        {
            **ACCELERATOR,
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
    return with_variants(config, variants, {"smoke": SMOKE_RANDOM})
