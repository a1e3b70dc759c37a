"""Code sets of training images in safetensors files, each as its rank: 13 bytes for 16 of 512.

Labels of the images may be stored with them, one byte each; the names of their values are metadata.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import write_atomically
from pivq_jax.common.weights import read_header, read_safetensors
from pivq_jax.sampling.edit import Labels, check_labels
from pivq_jax.sampling.space import CodeSpace

RANKS = "ranks"  # name of a tensor, uint8 [M, bytes of a rank]
LABELS = "labels"  # uint8 [M, A], if there are labels
FACTORS = "pivq_jax_factors"  # key of the metadata
MOST_VALUES = 256  # of a factor
LONGEST = 200  # characters of the name of a factor or value
MOST_CODES = 2**24  # of all parents together, 1,700 times those of the model in the package


def write_parents(
    path: Path, codes: np.ndarray, space: CodeSpace, labels: Labels | None = None
) -> None:
    """Writes the codes of images atomically.

    Labels, too, if no factor has more than 256 values, or a name more than 200 characters.
    """
    arrays, metadata = {RANKS: space.rank(codes)}, {}
    few = labels and max(map(len, labels.factors.values())) <= MOST_VALUES
    if labels and few and longest_name(labels.factors) <= LONGEST:
        arrays[LABELS] = labels.values.astype(np.uint8)
        metadata[FACTORS] = json.dumps(dict(labels.factors))
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def longest_name(factors: Mapping[str, Sequence[str]]) -> int:
    """Returns the number of characters of the longest name of a factor or of a value."""
    return max(len(name) for each, values in factors.items() for name in (each, *values))


def read_parents(path: Path, space: CodeSpace) -> tuple[np.ndarray, Labels | None]:
    """Reads the codes of images, int32 [M, N], and labels, if any; refuses another model's."""
    remedy = "give a directory that save_pretrained wrote"
    held, metadata = read_header(path, remedy)
    whole = held.keys() in ({RANKS}, {RANKS, LABELS})
    if not whole or held[RANKS].ndim != 2 or not held[RANKS].size:
        raise InputError(f"{path} does not hold the ranks of code sets: {remedy}")
    # Before what may be larger than the memory is read.
    numbers = [each.size for each in held.values()] + [held[RANKS].shape[0] * space.num_codes]
    if (largest := max(numbers)) > MOST_CODES:
        raise InputError(f"{path} holds {largest:,} numbers, more than {MOST_CODES:,}: {remedy}")
    arrays, _ = read_safetensors(path, remedy)
    try:
        codes = space.unrank(arrays[RANKS])
        if LABELS not in arrays:
            return codes, None
        factors = {
            str(name): tuple(map(str, values))
            for name, values in dict(json.loads(metadata[FACTORS])).items()
        }
        if (longest := longest_name(factors)) > LONGEST:
            raise ValueError(f"a name has {longest:,} characters, more than {LONGEST}")
        return codes, check_labels(Labels(arrays[LABELS], factors), len(codes))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not of its model ({brief(error)}): {remedy}") from error
