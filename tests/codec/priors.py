"""Small priors for the tests of codes."""

import functools
from collections.abc import Callable

import numpy as np
from flax import traverse_util

from pivq_jax.sampling.prior import Prior, SetPrior, parameter_shapes


@functools.cache
def shapes_of(network: SetPrior) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights, by name and in order of the names."""
    flat = traverse_util.flatten_dict(parameter_shapes(network), sep="/")
    return {name: flat[name].shape for name in sorted(flat)}


def make_prior(
    network: SetPrior, values: Callable[[str, tuple[int, ...]], np.ndarray], bits: float = 0.0
) -> Prior:
    """A prior with the weights `values(name, shape)`."""
    arrays = {
        name: np.asarray(values(name, shape), np.float32)
        for name, shape in shapes_of(network).items()
    }
    return Prior(network, traverse_util.unflatten_dict(arrays, sep="/"), bits)


def random_prior(network: SetPrior, seed: int = 0, scale: float = 0.3) -> Prior:
    """A prior with random weights."""
    rng = np.random.default_rng(seed)
    return make_prior(
        network, lambda name, shape: scale * rng.normal(size=shape) + name.endswith("scale")
    )


def uniform_prior(network: SetPrior) -> Prior:
    """A prior to which all sets are equally likely."""
    return make_prior(network, lambda name, shape: np.zeros(shape))


def counted_prior(network: SetPrior) -> Prior:
    """The prior of docs/codec_format.md, with the weights ((37 i) mod 101 - 50) / 100 in order."""
    count = 0

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal count
        numbers = count + np.arange(np.prod(shape, dtype=int))
        count += len(numbers)
        return (((37 * numbers) % 101 - 50) / 100).reshape(shape)

    return make_prior(network, values)
