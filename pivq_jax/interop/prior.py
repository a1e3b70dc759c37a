"""Priors over sets in safetensors files: the weights, and the sizes of the network as metadata."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import write_atomically
from pivq_jax.common.weights import read_safetensors
from pivq_jax.sampling.prior import Prior, SetPrior

KEY = "pivq_jax_prior"
SIZES = ("width", "depth", "heads")
MOST = 16_384  # of a size, as a file from elsewhere may hold any number


def write_prior(path: Path, prior: Prior) -> None:
    """Writes a prior atomically."""
    arrays = traverse_util.flatten_dict(jax.device_get(prior.params), sep="/")
    sizes = {name: getattr(prior.network, name) for name in SIZES}
    metadata = {KEY: json.dumps({**sizes, "bits": prior.bits})}
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def read_prior(path: Path, num_codes: int, codebook_size: int) -> Prior:
    """Reads a prior, its parameters as float32 NumPy arrays; refuses that of another model."""
    remedy = "give a directory that save_pretrained wrote"
    arrays, metadata = read_safetensors(path, remedy)
    try:
        held = dict(json.loads(metadata[KEY]))
        sizes = {name: held[name] for name in SIZES}
        if not all(type(size) is int and 0 < size <= MOST for size in sizes.values()):
            raise ValueError(f"sizes {sizes}")
        network, bits = SetPrior(codebook_size, **sizes), float(held["bits"])
        codes = jnp.zeros((1, num_codes), jnp.int32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), codes, codes > 0)["params"]
    except (KeyError, TypeError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise InputError(f"{path} is no prior ({brief(error)}): {remedy}") from error
    wanted = traverse_util.flatten_dict(shapes, sep="/")
    fits = arrays.keys() == wanted.keys() and all(
        arrays[name].shape == wanted[name].shape
        and arrays[name].dtype == np.float32
        and np.isfinite(arrays[name]).all()
        for name in wanted
    )
    if not fits:
        raise InputError(f"{path} does not hold the weights of its prior: {remedy}")
    return Prior(network, traverse_util.unflatten_dict(arrays, sep="/"), bits)
