"""Drawn portraits at 64x64 in colour, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64 \\
        --skip=configs/portraits_skip.txt
    python -m pivq_jax.main --config=configs/portraits.py --config.data.path=ALIGNED

The 45,594 portraits are those of artflow.ai (CC BY 4.0); docs/portraits.md says where they are and
what is left out. Images of one prompt are in one split, whatever their folder: a file is named
PROMPT-NUMBER.jpg. Each image is a set of N = 128 of K = 32,000 entries, which the decoder gets
without places. They are runs of principal components of the whole image, so the decoder alone is
trained, and each latent has 250 entries of its own: matching decides nothing.

Variants: `:queries` (latents of an encoder that learns; of K = 8,192 entries matching decides who
has which), `:128px` (at 128x128, with patches of 16 pixels), `:smoke` (a check, no model),
`:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import COMPONENTS, FACES_64, base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "portraits"
    config.data.name = "image_folder"
    config.data.group = "(?:.*/)?(.*)-[0-9]+"  # 07/Old-elf-1200.png: the prompt, in any folder
    config.update_from_flattened_dict(COMPONENTS)
    return with_variants(config, variants, FACES_64)
