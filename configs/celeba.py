"""CelebA at 128x128, the official data (Liu et al. 2015, arXiv 1411.7766): `img_align_celeba`.

First version: it builds, trains and evaluates on a folder of the data's aligned images; the full
recipe (perceptual and adversarial losses, official splits and attributes) is still to come, so no
result is promised here.

    python -m pivq_jax.main --config=configs/celeba.py --config.data.path=DIR

N = 128 codes of K = 16 N entries: at this ratio matching no longer costs reconstruction on our
default data. 256 patches of 8 pixels; a ViT of width 512.
Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from configs.common import ACCELERATOR, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = "celeba"
    config.update_from_flattened_dict(ACCELERATOR)
    config.update_from_flattened_dict(
        {
            "data.name": "celeba",
            "data.image_size": 128,
            "data.flip": True,
            "model.num_codes": 128,
            "model.code_dim": 64,
            "model.patch_size": 8,
            "model.width": 512,
            "model.heads": 8,
            "model.encoder_depth": 8,
            "model.set_depth": 2,
            "model.decoder_depth": 8,
            "model.output_channels": 64,
            "quantizer.codebook_size": 2048,
            "train.steps": 200000,
            "train.batch_size": 256,
        }
    )
    return with_variants(config, variants, smoke={"data.name": "random"})
