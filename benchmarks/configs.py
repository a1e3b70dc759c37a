"""The config that a benchmark is asked for."""

import runpy
from typing import Any


def config_from_file(name: str) -> Any:
    """The config of a file, with variants after a colon: configs/toon_faces.py:nearest."""
    file, _, variants = name.partition(":")
    return runpy.run_path(file)["get_config"](variants)
