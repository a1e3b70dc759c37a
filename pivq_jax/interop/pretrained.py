"""Published models: directories in the layout of the Hugging Face hub (docs/interop.md).

The metadata of the weights is the description needed to use them. Beside them there may be the
codes of training images, from which new ones are made, with labels and the names of their values,
and a prior with the sizes of its network.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import check_directory, json_bytes, replace_together
from pivq_jax.common.hub import CARD, CONFIG, PARENTS, PRIOR, WEIGHTS, check_published
from pivq_jax.common.params import Params
from pivq_jax.common.weights import (
    find_faults,
    pack_arrays,
    read_header,
    read_safetensors,
)
from pivq_jax.config.check import prior_settings
from pivq_jax.config.description import FORMAT_VERSION
from pivq_jax.interop.card import model_card
from pivq_jax.interop.safetensors_file import pack_model, read_model
from pivq_jax.sampling.edit import Labels, check_labels
from pivq_jax.sampling.prior import Prior, build_prior, parameter_shapes

_REMEDY = "give a directory that save_pretrained wrote"

# In the file of the parents.
CODES = "codes"  # name of a tensor, unsigned integers [M, N]
LABELS = "labels"  # uint8 [M, A], if there are labels
FACTORS = "pivq_jax_factors"  # key of the metadata
MOST_VALUES = 256  # of a factor
LONGEST = 200  # characters of the name of a factor or value
MOST_CODES = 2**24  # of all parents together, 1,700 times those of the model in the package

# In that of the prior.
PRIOR_KEY = "pivq_jax_prior"  # key of the metadata
SIZES = ("width", "depth", "heads")


class Published(NamedTuple):
    """A published model."""

    params: Params  # a tree of float32 arrays, NumPy's if it was read
    description: dict[str, Any]  # see `read_model`
    parents: np.ndarray | None = None  # int32 [M, N], the codes of training images
    labels: Labels | None = None  # of these images
    prior: Prior | None = None


def check_target(directory: Path) -> None:
    """Checks that a published model can be written to a local directory, which need not exist.

    The workdir of a run is refused, as it has a config.json, too.
    """
    check_directory(directory, "directory")
    if (directory / "checkpoints").exists():
        raise InputError(f"{directory} holds a run: give another directory")


def write_pretrained(directory: Path, model: Published) -> None:
    """Writes the files of a published model to a local directory, replacing existing ones."""
    check_target(directory)
    params, description, parents, labels, prior = model
    space = CodeSpace.of(description["config"])
    card = model_card(description, 0 if parents is None else len(parents))
    contents = {
        WEIGHTS: pack_model(params, description),
        PARENTS: None if parents is None else pack_parents(parents, space, labels),
        PRIOR: None if prior is None else pack_prior(prior),
        CONFIG: json_bytes({"format_version": FORMAT_VERSION, **description}),
        CARD: card.encode(),
    }
    replace_together(directory, contents)


def read_pretrained(directory: Path) -> Published:
    """Reads a published model from a directory, such as `common.hub.find_pretrained` returns."""
    check_published(directory)
    params, description = read_model(directory / WEIGHTS)
    parents, labels, prior = None, None, None
    space = CodeSpace.of(description["config"])
    if (directory / PARENTS).is_file():
        parents, labels = read_parents(directory / PARENTS, space)
    if (directory / PRIOR).is_file():
        prior = read_prior(directory / PRIOR, space)
    return Published(params, description, parents, labels, prior)


def pack_parents(codes: np.ndarray, space: CodeSpace, labels: Labels | None = None) -> bytes:
    """Returns the content of a file with the codes of images.

    Labels, too, but those of factors that have more than 256 values, or a name of more than 200
    characters.
    """
    if len(codes) > (most := MOST_CODES // space.num_codes):
        raise InputError(
            f"{len(codes):,} parents hold {codes.size:,} codes, more than {MOST_CODES:,}: give at"
            f" most {most:,}"
        )
    arrays, metadata = {CODES: space.check(codes).astype(space.smallest_dtype)}, {}
    factors = labels.factors if labels else {}
    kept = {
        name: list(values)
        for name, values in factors.items()
        if len(values) <= MOST_VALUES and max(map(len, (name, *values))) <= LONGEST
    }
    if labels and kept:
        columns = [index for index, name in enumerate(factors) if name in kept]
        arrays[LABELS] = labels.values[:, columns].astype(np.uint8)
        metadata[FACTORS] = json.dumps(kept)
    return pack_arrays(arrays, metadata)


def read_parents(path: Path, space: CodeSpace) -> tuple[np.ndarray, Labels | None]:
    """Reads the codes of images, int32 [M, N], and labels, if any; refuses another model's."""
    shapes, metadata = read_header(path, _REMEDY)
    whole = shapes.keys() in ({CODES}, {CODES, LABELS})
    if not whole or shapes[CODES].ndim != 2 or not shapes[CODES].size:
        raise InputError(f"{path} does not hold the codes of images: {_REMEDY}")
    # Before what may be larger than the memory is read.
    if (largest := max(array.size for array in shapes.values())) > MOST_CODES:
        raise InputError(f"{path} holds {largest:,} numbers, more than {MOST_CODES:,}: {_REMEDY}")
    arrays = read_safetensors(path, _REMEDY)
    try:
        held_codes = jnp.asarray(space.check(arrays[CODES]), jnp.int32)
        codes = np.asarray(space.canonical(held_codes))
        if LABELS not in arrays:
            return codes, None
        factors = {
            str(name): tuple(map(str, values))
            for name, values in dict(json.loads(metadata[FACTORS])).items()
        }
        longest = max(len(text) for name, values in factors.items() for text in (name, *values))
        if longest > LONGEST:
            raise ValueError(f"a name has {longest:,} characters, more than {LONGEST}")
        return codes, check_labels(Labels(arrays[LABELS], factors), len(codes))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not of its model ({brief(error)}): {_REMEDY}") from error


def pack_prior(prior: Prior) -> bytes:
    """Returns the content of a file with a prior."""
    arrays = traverse_util.flatten_dict(prior.params, sep="/")
    sizes = {name: getattr(prior.network, name) for name in SIZES}
    metadata = {PRIOR_KEY: json.dumps({**sizes, "bits": prior.bits})}
    return pack_arrays(arrays, metadata)


def read_prior(path: Path, space: CodeSpace) -> Prior:
    """Reads a prior over a space; its parameters are float32 NumPy arrays. That of another model is
    refused.
    """
    shapes, metadata = read_header(path, _REMEDY)
    try:
        description = dict(json.loads(metadata[PRIOR_KEY]))
        settings = prior_settings(
            {name: description[name] for name in SIZES}
        )  # it may hold any number
        network, bits = build_prior(space, settings), float(description["bits"])
        if not math.isfinite(bits):
            raise ValueError(f"bits = {bits}")
        params = parameter_shapes(network)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path} is no prior ({brief(error)}): {_REMEDY}") from error
    # What does not fit is not read: it may be larger than the memory.
    fits = not find_faults(shapes, traverse_util.flatten_dict(params, sep="/"))
    arrays = read_safetensors(path, _REMEDY) if fits else {}
    if not fits or not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(f"{path} does not hold the weights of its prior: {_REMEDY}")
    return Prior(network, traverse_util.unflatten_dict(arrays, sep="/"), bits)
