"""Weights in safetensors files with PyTorch's names, and a description of the model as metadata.

The entry `pivq_jax` of the metadata is JSON with `config`, the resolved config of the run, and
optionally `step` (by default the last step of the config), `progress`, `metrics` and
`format_version` (by default 1). Pickled files are not supported, since opening one may execute code
in it.
"""

import functools
import json
import reprlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import Params, pack_arrays, read_header, read_safetensors
from pivq_jax.config.check import check_config, check_fields, config_of_model, with_added_fields
from pivq_jax.config.fields import PATHS, Config
from pivq_jax.config.sections import ModelConfig
from pivq_jax.interop.weights import check_state_dict, from_torch, to_torch
from pivq_jax.model.pivq import PIVQ

KEY = "pivq_jax"
FORMAT_VERSION = 1  # raised when files are written that earlier versions would misread


def pack_model(params: Params, description: dict[str, Any]) -> bytes:
    """Returns the content of a file with parameters and their description.

    Raises ValueError if the description contains NaN or infinity.
    """
    description = {"format_version": FORMAT_VERSION, **description}
    metadata = {"format": "pt", KEY: json.dumps(description, allow_nan=False)}
    return pack_arrays(to_torch(params), metadata)


def read_model(path: Path) -> tuple[Params, dict[str, Any]]:
    """Reads and checks parameters, as NumPy arrays that are finite, and their description."""
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is not named *.safetensors, the one format that is read: in PyTorch, write it"
            " with safetensors.torch.save_file"
        )
    remedy = "give a file of pivq_jax.convert or save_pretrained"
    held, metadata = read_header(path, remedy)
    description, config = _check_description(metadata.get(KEY, ""), path)
    shapes = model_shapes(config, str(path))
    check_state_dict(held, shapes, str(path))  # before what may be larger than the memory is read
    arrays = read_safetensors(path, remedy)
    params = from_torch(arrays, shapes, str(path))
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise InputError(f"{path} holds NaN or infinity in {', '.join(broken)}")
    return params, description


def config_of_run(description: dict[str, Any], path: Path) -> Config:
    """Returns the config of a file's description for a run: with all fields, that go together."""
    try:
        config = Config.from_dict(description["config"])
        check_config(config, training=False)
        return config
    except InputError as error:  # fields of another version
        raise InputError(f"the config in {path} is not that of a run, whole: {error}") from error


def _check_description(text: str, path: Path) -> tuple[dict[str, Any], Config]:
    """The checked description in `text`, with `config`, `step`, `progress` and `metrics`.

    Whoever wrote the file chose its paths, so none of them is read: only those that a user gives.
    """
    try:
        description = dict(json.loads(text))
        json.dumps(description, allow_nan=False)  # NaN is no JSON, nor is 1e999, read as infinity
        version = description.pop("format_version", FORMAT_VERSION)
        if version == FORMAT_VERSION:
            description["config"] = with_added_fields(dict(description["config"]))
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
    config = config_of_model(description["config"], str(path))
    try:
        check_fields(config)
    except InputError as error:
        raise InputError(f"the config in {path}: {error}") from error
    description = without_paths(description)
    step = description.setdefault("step", description["config"].get("train", {}).get("steps"))
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


def model_shapes(config: Config, origin: str = "config") -> Params:
    """Computes the shapes and dtypes of the parameters of a config's model.

    Returns a tree of `jax.ShapeDtypeStruct`. Raises InputError if the config describes no model;
    the message names the place of the config, `origin`.
    """
    kind = config.quantizer.kind
    # Nearest entries have the same parameters, and no matching to trace.
    kind = "nearest" if kind == "matching" else kind
    try:
        shapes = _shapes(config.model, config.data.image_size, config.quantizer.codebook_size, kind)
        return jax.tree.map(lambda leaf: leaf, shapes)  # which the caller may change
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the config in {origin} describes no model: {error}") from error


@functools.lru_cache
def _shapes(model: ModelConfig, image_size: int, codebook_size: int, kind: str) -> Params:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    network = PIVQ(model, image_size, codebook_size, kind)
    return jax.eval_shape(network.init, jax.random.key(0), images)["params"]


def without_paths(description: dict[str, Any]) -> dict[str, Any]:
    """Returns a description, of any version, with emptied paths, as these are of this machine."""
    config = {**description["config"]}
    for section, field in (path.split(".") for path in PATHS):
        if field in config.get(section, {}):
            config[section] = {**config[section], field: ""}
    return {**description, "config": config}
