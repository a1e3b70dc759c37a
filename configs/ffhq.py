"""FFHQ at 256x256 (Karras et al. 2019, arXiv 1812.04948): the tree `images1024x1024`.

First version: it builds, trains and evaluates on a folder of the data's aligned images; the full
recipe (perceptual and adversarial losses, official splits and attributes) is still to come, so no
result is promised here.

    python -m pivq_jax.main --config=configs/ffhq.py --config.data.path=DIR

N = 256 codes of K = 16 N entries; 256 patches of 16 pixels; a ViT of width 768, 12 blocks deep
on either side.
Variants: `:smoke` (random images of this size and a tiny model, a minute on a CPU), `:nearest`,
`:positional`; several with commas.
"""

from ml_collections import ConfigDict

from configs.common import ACCELERATOR, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = "ffhq"
    config.update_from_flattened_dict(ACCELERATOR)
    config.update_from_flattened_dict(
        {
            "data.name": "ffhq",
            "data.image_size": 256,
            "data.flip": True,
            "model.num_codes": 256,
            "model.code_dim": 64,
            "model.patch_size": 16,
            "model.width": 768,
            "model.heads": 12,
            "model.encoder_depth": 12,
            "model.set_depth": 2,
            "model.decoder_depth": 12,
            "model.output_channels": 96,
            "quantizer.codebook_size": 4096,
            "train.steps": 200000,
            "train.batch_size": 256,
        }
    )
    return with_variants(config, variants, smoke={"data.name": "random"})
