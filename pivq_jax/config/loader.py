"""Loads configs by name, file or run: `toon_faces`, `/any/where/mine.py:smoke`, `runs/mine`."""

import runpy
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from pivq_jax.common.errors import InputError, meant
from pivq_jax.common.files import as_path, expanded, is_remote
from pivq_jax.common.hub import is_published
from pivq_jax.config.fields import Config
from pivq_jax.config.presets import base_config

flags.disclaim_key_flags()  # flags defined here belong to the calling module


def experiments() -> dict[str, Path]:
    """Returns the config files of the experiments in the package by name."""
    package = Path(__file__).parents[1]
    # In an installed package, they are inside; in a checkout, their folder is beside the package.
    folders = (package / "configs", package.parent / "configs")
    files = next((sorted(f.glob("*.py")) for f in folders if f.is_dir()), [])
    return {file.stem: file for file in files if file.stem != "__init__"}


def load_config_dict(name: str) -> ConfigDict:
    """Loads the config of an experiment in the form that flags can change, not locked.

    Args:
        name: name of an experiment in this package, or a file that ends in `.py`; variants may
            follow a colon, as in `toon_faces:smoke,nearest`. Or the workdir of a run or the
            directory of a published model, whose config names no files and has no `data.group`.

    Raises:
        InputError: if there is no such experiment or file, or it does not define a config.
        ValueError: if there is no such variant, or variants exclude each other.
    """
    where, _, variants = name.partition(":")
    known = experiments()
    if where.endswith(".py"):
        file = expanded(where)
    elif where in known:
        file = known[where]
    elif not is_remote(name) and is_published(folder := as_path(name)):
        from pivq_jax.config.description import read_published_config  # imports jax: slow

        return _as_dict(read_published_config(folder))
    elif (as_path(name) / "config.json").exists():
        from pivq_jax.config.check import config_of_model, read_config

        return _as_dict(config_of_model(read_config(as_path(name), "--config"), name))
    else:
        raise InputError(
            f"there is no config {where!r}{meant(where, known) or ':'} give one of"
            f" {', '.join(known)}, a file such as mine.py,"
            " the workdir of a run or the directory of a published model"
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


def _as_dict(values: Config) -> ConfigDict:
    config = base_config()
    config.update(values.to_dict())
    return config


def load_config(name: str) -> Config:
    """Loads the typed config of an experiment as `load_config_dict` does.

    Values are not checked (see `check_config`). Raises InputError if the config is incomplete.
    """
    return Config.from_dict(load_config_dict(name).to_dict())


class _Parser(flags.ArgumentParser[ConfigDict]):
    def parse(self, argument: str) -> ConfigDict:
        config = load_config_dict(argument)
        config.lock()  # flags must not add fields
        return config


def define_config_flag() -> flags.FlagHolder[ConfigDict]:
    """Defines the flag --config, with --config.SECTION.FIELD=VALUE for every field."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "A name such as toon_faces, or a file, with variants after a colon; or the workdir of a run"
        " or the directory of a published model, whose config is used. If only fields of the config"
        " are given, they change the config of --workdir or --pretrained.",
    )
    flags.FLAGS["config"].parser = _Parser()
    return holder
