"""Drawn portraits at 64x64 in colour, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64 \\
        --skip=configs/portraits_skip.txt
    python -m pivq_jax.main --config=configs/portraits.py --config.data.path=ALIGNED

The 45,594 portraits are those of artflow.ai (CC BY 4.0); docs/portraits.md says where they are and
what is left out. Images of one prompt are in one split, whatever their folder: a file is named
PROMPT-NUMBER.jpg. Each image is a set of N = 128 of K = 8,192 entries, which the decoder gets
without places.

Variants: `:128px` (at 128x128, with patches of 16 pixels), `:smoke` (a check, no model),
`:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "portraits"
    config.data.name = "image_folder"
    config.data.group = "(?:.*/)?(.*)-[0-9]+"  # 07/Old-elf-1200.png: the prompt, in any folder
    config.data.flip = True
    config.model.num_codes = 128
    config.model.width = 160
    config.model.encoder_depth = 3
    config.model.decoder_depth = 3
    config.quantizer.codebook_size = 8_192
    config.quantizer.init_at = 0.5
    config.quantizer.freeze_at = 0.659
    config.quantizer.noise = 0.4
    config.loss.perceptual = 1.0
    config.loss.perceptual_shift = 3
    config.adversarial.weight = 0.02
    config.adversarial.recombined_weight = 0.05
    config.adversarial.start_at = 0.659
    config.optimizer.warmup = 0.0455
    config.train.steps = 4_400
    larger = {"data.image_size": 128, "model.patch_size": 16}
    smoke = {"quantizer.codebook_size": 512, "quantizer.freeze_at": 0.667}
    return with_variants(config, variants, {"128px": larger, "smoke": smoke})
