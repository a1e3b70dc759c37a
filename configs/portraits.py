"""Drawn portraits at 64x64 in colour, on a laptop's CPU.

    python -m pivq_jax.data.align --source=DIR --output=ALIGNED --preset=face --size=64 \\
        --skip=configs/portraits_skip.txt
    python -m pivq_jax.main --config=configs/portraits.py --config.data.path=ALIGNED

The 45,594 portraits are those of artflow.ai (CC BY 4.0); docs/portraits.md says where they are and
what is left out. Images of one prompt are in one split, whatever their folder: a file is named
PROMPT-NUMBER.jpg. Each image is a set of N = 128 of K = 32,000 entries, which the decoder gets
without places. They are runs of principal components of the whole image, so the decoder alone is
trained, and each latent has entries of its own: matching decides nothing.

Variants: `:queries` (latents of an encoder that learns; of K = 8,192 entries matching decides who
has which), `:128px` (at 128x128, with patches of 16 pixels), `:smoke` (a check, no model),
`:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants

# The model whose latents are learned: codes share entries, and matching decides.
QUERIES = {
    "model.encoder": "queries",
    "model.code_dim": 32,
    "model.encoder_depth": 3,
    "model.output_channels": 32,
    "quantizer.codebook_size": 8_192,
    "quantizer.init_at": 0.5,
    "quantizer.init_batches": 64,
    "quantizer.freeze_at": 0.659,
    "quantizer.noise": 0.4,
    "loss.perceptual": 1.0,
    "adversarial.start_at": 0.659,
    "optimizer.learning_rate": 1.5e-3,
    "optimizer.muon_learning_rate": 6e-3,
    "optimizer.warmup": 0.0455,
    "train.steps": 4_400,
    "train.ema_decay": 0.999,
    "sample.spread": 0.0,
}


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "portraits"
    config.data.name = "image_folder"
    config.data.group = "(?:.*/)?(.*)-[0-9]+"  # 07/Old-elf-1200.png: the prompt, in any folder
    config.data.flip = True
    config.model.encoder = "components"
    config.model.num_codes = 128
    config.model.code_dim = 14
    config.model.width = 160
    config.model.decoder_depth = 3
    config.model.output_channels = 36
    config.quantizer.codebook_size = 32_000
    config.quantizer.init_at = 0.0
    config.quantizer.init_batches = 1_000
    config.quantizer.freeze_at = 0.0
    config.loss.perceptual = 2.0
    config.loss.perceptual_shift = 3
    config.adversarial.weight = 0.02
    config.adversarial.recombined_weight = 0.05
    config.adversarial.start_at = 0.0
    config.optimizer.learning_rate = 7.5e-4
    config.optimizer.muon_learning_rate = 3e-3
    config.optimizer.warmup = 0.033
    config.train.steps = 3_000
    config.train.ema_decay = 0.998
    config.sample.spread = 0.5
    larger = {"data.image_size": 128, "model.patch_size": 16}
    smoke = {
        "model.num_codes": 16,
        "model.num_components": 64,
        "model.code_dim": 11,
        "quantizer.codebook_size": 512,
        "quantizer.init_at": 0.0,
        "adversarial.start_at": 0.0,
    }
    return with_variants(config, variants, {"128px": larger, "queries": QUERIES, "smoke": smoke})
