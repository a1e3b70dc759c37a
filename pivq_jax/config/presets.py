"""Base config, shared recipes and variants of experiments.

An experiment is a file that defines `get_config(variants)`; see `configs/`.
"""

from typing import Any

from ml_collections import ConfigDict

from pivq_jax.common.errors import meant
from pivq_jax.config.fields import Config

# Codes of principal components, so the decoder alone is trained: faces at 64x64 on a laptop's CPU.
COMPONENTS = {
    "data.flip": True,
    "model.encoder": "components",
    "model.num_codes": 128,
    "model.code_dim": 14,
    "model.width": 160,
    "model.decoder_depth": 3,
    "model.output_channels": 36,
    "quantizer.codebook_size": 32_000,
    "quantizer.init_at": 0.0,
    "quantizer.init_batches": 1_000,
    "quantizer.freeze_at": 0.0,
    "loss.perceptual": 2.0,
    "loss.perceptual_shift": 3,
    "adversarial.weight": 0.02,
    "adversarial.recombined_weight": 0.05,
    "adversarial.start_at": 0.0,
    "optimizer.learning_rate": 7.5e-4,
    "optimizer.muon_learning_rate": 3e-3,
    "optimizer.warmup": 0.033,
    "train.steps": 3_000,
    "train.ema_decay": 0.998,
    "sample.spread": 0.5,
}

# The same with codes of learned queries, which share entries: matching decides who has which.
QUERIES = {
    "model.encoder": "queries",
    "model.num_codes": 128,
    "model.code_dim": 32,
    "model.encoder_depth": 3,
    "model.output_channels": 32,
    "quantizer.codebook_size": 8_192,
    "quantizer.init_at": 0.5,
    "quantizer.init_batches": 64,
    "quantizer.freeze_at": 0.659,
    "quantizer.noise": 0.4,
    "loss.perceptual": 1.0,
    "adversarial.recombined_weight": 0.05,
    "adversarial.start_at": 0.659,
    "optimizer.learning_rate": 1.5e-3,
    "optimizer.muon_learning_rate": 6e-3,
    "optimizer.warmup": 0.0455,
    "train.steps": 4_400,
    "train.ema_decay": 0.999,
    "sample.spread": 0.0,
}

# Variants of both.
FACES_64: dict[str, dict[str, Any]] = {
    "128px": {"data.image_size": 128, "model.patch_size": 16},
    "queries": QUERIES,
    "smoke": {
        "model.num_codes": 16,
        "model.num_components": 64,
        "model.code_dim": 11,
        "quantizer.codebook_size": 512,
        "quantizer.init_at": 0.0,
        "adversarial.start_at": 0.0,
    },
}

# Learned queries on accelerators, with more codes and without a discriminator.
# Muon's peak rate is four times AdamW's, as in the field defaults.
ACCELERATOR = {
    "data.flip": True,
    "data.workers": 8,
    "model.dtype": "bfloat16",
    "model.num_codes": 256,
    "quantizer.codebook_size": 16_384,
    "quantizer.init_at": 0.65,
    "quantizer.init_batches": 16,
    "quantizer.noise": 0.4,
    "loss.perceptual": 1.0,
    "loss.perceptual_shift": 3,
    "optimizer.learning_rate": 3e-4,
    "optimizer.muon_learning_rate": 1.2e-3,
    "optimizer.warmup": 0.01,
    "train.steps": 100_000,
    "train.batch_size": 256,
    "train.ema_decay": 0.9999,
    "train.log_every": 100,
    "train.checkpoint_every": 2_000,
    "train.picture_every": 5_000,
    "evaluate.samples": 10_000,
    "evaluate.every": 2_000,
}

# Faces at 256x256: ViTs of 12 blocks as encoder and decoder over 256 patches of 16 pixels.
FACES_256 = {
    **ACCELERATOR,
    "data.image_size": 256,
    "model.patch_size": 16,
    "model.width": 768,
    "model.heads": 12,
    "model.encoder_depth": 12,
    "model.decoder_depth": 12,
    "model.output_channels": 96,
}

# Variants of all configs: fields by dotted name. `smoke` checks that everything runs, in about a
# minute on a CPU, with a small model, few steps, images and samples; it trains no model to use.
VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": {
        "model.width": 32,
        "model.heads": 2,
        "model.encoder_depth": 1,
        "model.set_depth": 1,
        "model.decoder_depth": 1,
        "model.output_channels": 8,
        "quantizer.init_at": 0.333,
        "quantizer.init_batches": 16,
        "quantizer.revive_every": 20,
        "adversarial.start_at": 0.667,
        "adversarial.channels": 8,
        "optimizer.warmup": 0.167,
        "train.steps": 60,
        "train.batch_size": 16,
        "train.log_every": 10,
        "train.checkpoint_every": 20,
        "train.picture_every": 50,
        "evaluate.images": 200,
        "evaluate.samples": 20,
        "evaluate.every": 40,
    },
    "nearest": {"quantizer.kind": "nearest"},
    "positional": {"quantizer.kind": "positional"},
}

# `smoke` of these recipes besides: random images of the full size, no workers, fewer codes.
SMOKE_RANDOM = {
    "data.name": "random",
    "data.workers": 0,
    "model.num_codes": 64,
    "quantizer.codebook_size": 2048,
}


def base_config() -> ConfigDict:
    """Returns a config with all fields at their defaults, for a laptop's CPU; see `fields`."""
    return ConfigDict(Config().to_dict())


def with_variants(
    config: ConfigDict, variants: str, own: dict[str, dict[str, Any]] | None = None
) -> ConfigDict:
    """Applies the variants that follow the colon of --config, such as `:smoke` or `:smoke,nearest`.

    Args:
        config: the config, changed in place.
        variants: names separated by commas, of `VARIANTS` or `own`; '' for none.
        own: further variants of this config, or further changes in variants of all configs.

    Returns:
        `config`, with the variants appended to its name.

    Raises:
        ValueError: if a variant is unknown, or variants exclude each other.
    """
    asked = [variant for variant in (variants or "").split(",") if variant]
    own = own or {}
    if {"nearest", "positional"} <= {*asked}:
        raise ValueError("config variants nearest and positional exclude each other: use one")
    for variant in sorted(asked, key="smoke".__eq__):  # which shrinks what others enlarge
        if variant not in VARIANTS | own:
            names = ", ".join(VARIANTS | own)
            asks = meant(variant, VARIANTS | own)
            raise ValueError(f"config variant {variant!r} is unknown{asks or ':'} use {names}")
        config.update_from_flattened_dict(VARIANTS.get(variant, {}) | own.get(variant, {}))
    config.name = "_".join([config.name, *asked])
    return config
