"""Configs: typed fields with limits, base configs of experiments, and the loader.

A config file only needs::

    from pivq_jax.config import base_config, with_variants

The loader is imported where it is used, as a loss, which needs a config, reads no files.
"""

from typing import TYPE_CHECKING, Any

from pivq_jax.config.fields import Config
from pivq_jax.config.presets import (
    ACCELERATOR,
    COMPONENTS,
    FACES_64,
    FACES_256,
    SMOKE_RANDOM,
    base_config,
    with_variants,
)

if TYPE_CHECKING:
    from pivq_jax.config.loader import load_config, load_config_dict

__all__ = [
    "ACCELERATOR",
    "COMPONENTS",
    "FACES_64",
    "FACES_256",
    "SMOKE_RANDOM",
    "Config",
    "base_config",
    "load_config",
    "load_config_dict",
    "with_variants",
]


def __getattr__(name: str) -> Any:
    if name in ("load_config", "load_config_dict"):
        from pivq_jax.config import loader

        return getattr(loader, name)
    raise AttributeError(f"module 'pivq_jax.config' has no attribute {name!r}")
