"""The description of a model in the metadata of its weights, written by whoever made the file.

The entry `pivq_jax` is JSON with `config`, the resolved config of the run, and optionally `step`
(by default the last step of the config), `progress`, `metrics` and `format_version` (by default 1).
All that opens a published model reads this, and nothing reads the `config.json` beside it.
"""

import json
import reprlib
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError
from pivq_jax.common.hub import WEIGHTS
from pivq_jax.common.weights import read_header
from pivq_jax.config.check import check_fields, config_of_model
from pivq_jax.config.fields import PATHS, Config

KEY = "pivq_jax"
FORMAT_VERSION = 1  # raised when files are written that version 0.1.0 would misread
# Fields that only a user gives: what is read from the user's disk, and a regular expression for
# names there, of which a crafted one never ends.
NOT_PUBLISHED = (*PATHS, "data.group")


def read_published_config(directory: Path) -> Config:
    """Reads the config of the published model in a directory, without what is `NOT_PUBLISHED`."""
    path = directory / WEIGHTS
    _, metadata = read_header(path, "give what save_pretrained wrote")
    return check_description(metadata.get(KEY, ""), path)[1]


def check_description(text: str, path: Path) -> tuple[dict[str, Any], Config]:
    """The checked description in `text`, with `config`, `step`, `progress` and `metrics`.

    Its config lacks what is `NOT_PUBLISHED`, as whoever wrote the file chose it.
    """
    try:
        description = dict(json.loads(text))
        json.dumps(description, allow_nan=False)  # NaN is no JSON, nor is 1e999, read as infinity
        version = description.pop("format_version", FORMAT_VERSION)
        fields = dict(description["config"]) if version == FORMAT_VERSION else {}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} does not say what model it is: its metadata needs an entry {KEY!r}, JSON with"
            ' "config", the config.json of a run'
        ) from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version = {reprlib.repr(version)}, and this version of pivq_jax"
            f" reads {FORMAT_VERSION}: use the version that wrote the file, or a newer one"
        )
    config = config_of_model(fields, str(path))
    try:
        check_fields(config)
    except InputError as error:
        raise InputError(f"the config in {path}: {error}") from error
    config = config.with_fields(dict.fromkeys(NOT_PUBLISHED, ""))
    description["config"] = config.to_dict()
    step = description.setdefault("step", config.train.steps)
    if not isinstance(step, int) or not 0 <= step < 2**31:
        raise InputError(f"{path}: step = {reprlib.repr(step)} must be a number of training steps")
    for name in ("progress", "metrics"):
        if not isinstance(description.setdefault(name, {}), dict):
            shown = reprlib.repr(description[name])
            raise InputError(f"{path}: {name} = {shown} must be a JSON object")
    if not _has_times(description["progress"]):
        raise InputError(f"{path}: the times in progress are no numbers of seconds: leave them out")
    return description, config


def _has_times(progress: dict[str, Any]) -> bool:
    """Whether the time spent on a run, as `training.cost.Clock.progress` gives it, can be read."""
    cost = progress.get("cost", {})
    spent = cost.get("spent", {}) if isinstance(cost, dict) else None
    if not isinstance(spent, dict) or cost.keys() - {"spent", "steps", "at_peak"}:
        return False
    numbers = progress.get("train_seconds", 0), cost.get("steps", 0), cost.get("at_peak", 0)
    return all(type(x) in (int, float) and 0 <= x < 1e12 for x in (*numbers, *spent.values()))


def without_paths(description: dict[str, Any]) -> dict[str, Any]:
    """Returns a description in which the fields of `NOT_PUBLISHED` are empty."""
    config = {**description["config"]}
    for section, field in (path.split(".") for path in NOT_PUBLISHED):
        if field in config.get(section, {}):
            config[section] = {**config[section], field: ""}
    return {**description, "config": config}
