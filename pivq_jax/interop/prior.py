"""Priors over sets in safetensors files: the weights, and the sizes of the network as metadata."""

import json
import reprlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util
from jax.typing import ArrayLike

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import write_atomically
from pivq_jax.common.weights import find_faults, read_header, read_safetensors
from pivq_jax.config.fields import all_fields
from pivq_jax.config.sections import PriorConfig
from pivq_jax.sampling.prior import Prior, build_prior, parameter_shapes
from pivq_jax.sampling.space import CodeSpace

KEY = "pivq_jax_prior"
SIZES = ("width", "depth", "heads")
LIMITS = {
    field.name: field.limit for field in all_fields(PriorConfig) if field.limit is not None
}  # those of a config that a person writes


def write_prior(path: Path, prior: Prior) -> None:
    """Writes a prior atomically."""
    arrays = traverse_util.flatten_dict(jax.device_get(prior.params), sep="/")
    sizes = {name: getattr(prior.network, name) for name in SIZES}
    metadata = {KEY: json.dumps({**sizes, "bits": prior.bits})}
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def read_prior(path: Path, space: CodeSpace, codebook: ArrayLike) -> Prior:
    """Reads a prior over a space with its codebook, float32 [K, D]; its parameters are float32
    NumPy arrays. That of another model is refused.
    """
    remedy = "give a directory that save_pretrained wrote"
    shapes, metadata = read_header(path, remedy)
    try:
        held = dict(json.loads(metadata[KEY]))
        sizes = {name: held[name] for name in SIZES}
        for name, size in sizes.items():  # a file from elsewhere may hold any number
            if type(size) is not int or not LIMITS[name].holds(size):
                raise ValueError(f"{name} = {reprlib.repr(size)} {LIMITS[name].text}")
        network, bits = build_prior(space, jnp.asarray(codebook), **sizes), float(held["bits"])
        params = parameter_shapes(network, space.num_codes)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise InputError(f"{path} is no prior ({brief(error)}): {remedy}") from error
    arrays: dict[str, np.ndarray] = {}
    fits = not find_faults(shapes, traverse_util.flatten_dict(params, sep="/"))
    if fits:  # otherwise it may be larger than the memory
        arrays, _ = read_safetensors(path, remedy)
    if not fits or not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(f"{path} does not hold the weights of its prior: {remedy}")
    return Prior(network, traverse_util.unflatten_dict(arrays, sep="/"), bits)
