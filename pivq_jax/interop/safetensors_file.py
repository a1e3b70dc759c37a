"""Weights in a safetensors file: PyTorch's names, and in the metadata what the model is.

The metadata's entry `pivq_jax` is JSON: `config`, the resolved config of the run, and where known
`step` (otherwise the config's last), `progress` and `metrics`. Pickled files are not read: opening
one runs what it holds.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_atomically
from pivq_jax.config.check import check_config, with_added_fields
from pivq_jax.config.fields import Config, is_whole
from pivq_jax.interop.weights import Params, from_torch, to_torch
from pivq_jax.model.pivq import pivq_from_config

KEY = "pivq_jax"


def write_model(path: Path, params: Params, description: dict[str, Any]) -> None:
    """Write parameters and their description (JSON, with at least `config`), atomically."""
    metadata = {"format": "pt", KEY: json.dumps(description, allow_nan=False)}
    write_atomically(path, safetensors.numpy.save(to_torch(params), metadata))


def read_model(path: Path) -> tuple[Params, dict[str, Any]]:
    """The parameters and their description.

    Raises:
        InputError: the file is no safetensors file, holds no config or one that does not fit, or
            its arrays are not those of the config's model; then all that are missing, unknown or of
            another shape are named, or all that are not finite.
    """
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is not named *.safetensors, the one format that is read: in PyTorch, write it"
            " with safetensors.torch.save_file"
        )
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a safetensors file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, TypeError) as error:  # TypeError: a type unknown to NumPy
        raise InputError(f"{path} is damaged or no safetensors file ({error})") from error
    description = _checked(metadata.get(KEY, ""), path)
    shapes = model_shapes(config_of_model(description["config"], str(path)), str(path))
    params = from_torch(arrays, shapes, str(path))
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise InputError(f"{path} holds NaN or infinity in {', '.join(broken)}")
    return params, description


def _checked(text: str, path: Path) -> dict[str, Any]:
    """The description of a model: `config` whole, `step` an integer, the others dicts."""
    try:
        description = json.loads(text)
        description["config"] = with_added_fields(dict(description["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not say what model it is: its metadata needs an entry {KEY!r}, JSON with"
            ' "config", the config.json of a run'
        ) from error
    config = config_of_model(description["config"], str(path))
    if is_whole(description["config"]):  # what another version lacks cannot be checked
        try:
            check_config(config, training=False)
        except InputError as error:
            raise InputError(f"the config in {path}: {error}") from error
    step = description.setdefault("step", description["config"].get("train", {}).get("steps"))
    if not isinstance(step, int) or not 0 <= step < 2**31:
        raise InputError(f"{path}: step = {step!r} must be a number of training steps")
    for name in ("progress", "metrics"):
        if not isinstance(description.setdefault(name, {}), dict):
            raise InputError(f"{path}: {name} = {description[name]!r} must be a JSON object")
    return description


def config_of_model(values: dict[str, Any], origin: str) -> Config:
    """The config that a file holds, which may be of another version; see `Config.of_model`.

    Raises:
        InputError: the config describes no model.
    """
    try:
        return Config.of_model(values)
    except InputError as error:
        raise InputError(f"the config in {origin} describes no model: {error}") from error


def model_shapes(config: Config, origin: str = "config") -> Params:
    """The parameters of the model that a config describes, as `jax.ShapeDtypeStruct`s.

    Raises:
        InputError: the config describes no model.
    """
    try:
        size = config.data.image_size
        model = pivq_from_config(config)
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        return jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the config in {origin} describes no model: {error}") from error
