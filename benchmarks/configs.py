"""Loads the config of a benchmark."""

import runpy
from typing import Any


def config_from_file(name: str) -> Any:
    """Loads a config file.

    Args:
        name: path of the file, with variants after a colon if any, such as
            configs/toon_faces.py:nearest.

    Returns:
        The ConfigDict.
    """
    file, _, variants = name.partition(":")
    return runpy.run_path(file)["get_config"](variants)
