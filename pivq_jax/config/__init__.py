"""Configs: typed fields with limits, base configs of experiments, and the loader.

A config file only needs::

    from pivq_jax.config import base_config, with_variants
"""

from pivq_jax.config.fields import Config
from pivq_jax.config.loader import load_config, load_config_dict
from pivq_jax.config.presets import ACCELERATOR, FACES_256, SMOKE_RANDOM, base_config, with_variants

__all__ = [
    "ACCELERATOR",
    "FACES_256",
    "SMOKE_RANDOM",
    "Config",
    "base_config",
    "load_config",
    "load_config_dict",
    "with_variants",
]
