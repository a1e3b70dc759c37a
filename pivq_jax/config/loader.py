"""Experiments by name or file: `toon_faces`, `configs/ffhq.py`, `/any/where/mine.py:smoke`."""

import runpy
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

import pivq_jax
from pivq_jax.common.errors import InputError
from pivq_jax.config.fields import Config

flags.disclaim_key_flags()  # a flag defined here is one of the module that asked for it


def experiments() -> dict[str, Path]:
    """The files of the experiments that come with the package, by name."""
    package = Path(pivq_jax.__file__).parent
    # An installed package holds them; in a checkout their folder lies beside it.
    folders = (package / "configs", package.parent / "configs")
    files = next((sorted(f.glob("*.py")) for f in folders if f.is_dir()), [])
    return {file.stem: file for file in files if file.stem != "__init__"}


def load_config_dict(name: str) -> ConfigDict:
    """The config of an experiment, as flags change it.

    Args:
        name: the name of an experiment of this package, or a file that ends in .py; variants may
            follow a colon, as in `toon_faces:smoke,nearest`.

    Raises:
        InputError: there is no such experiment or file, or it gives no config.
        ValueError: there is no such variant.
    """
    where, _, variants = name.partition(":")
    known = experiments()
    if where.endswith(".py"):
        file = Path(where).expanduser()
    elif where in known:
        file = known[where]
    else:
        raise InputError(
            f"there is no config {where!r}: give one of {', '.join(known)}, or a file such as"
            " mine.py"
        )
    if not file.is_file():
        raise InputError(
            f"{file} does not exist: give a config's file, or one of {', '.join(known)}"
        )
    get_config = runpy.run_path(str(file)).get("get_config")
    config = get_config(*filter(None, [variants])) if get_config else None
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{file} gives no config: it needs a function get_config(variants) that returns"
            " base_config(), changed"
        )
    return config


def load_config(name: str) -> Config:
    """The config of an experiment, as it is used; see `load_config_dict`.

    Raises:
        InputError: there is no such experiment or file, or it gives no whole config.
        ValueError: there is no such variant.
    """
    return Config.from_dict(load_config_dict(name).to_dict())


class _Parser(flags.ArgumentParser[ConfigDict]):
    """Of the value of --config."""

    def parse(self, argument: str) -> ConfigDict:
        config = load_config_dict(argument)
        config.lock()  # a field that does not exist is a mistake
        return config

    def flag_type(self) -> str:
        return "config"


def define_config_flag() -> flags.FlagHolder[ConfigDict]:
    """The flag --config, with --config.SECTION.FIELD=VALUE for every field."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "The experiment: a name such as toon_faces, or a file; variants after a colon.",
    )
    flags.FLAGS["config"].parser = _Parser()
    return holder
