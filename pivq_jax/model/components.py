"""Principal components of the whole image as latents: an encoder that no gradient trains.

Each latent is a run of successive components and each of its entries a pattern of the whole image,
so an image begins as the sum of the patterns of its codes. Runs are short where variances are
large, so that all need about as many bits (as in optimized product quantization, Ge et al. 2013).
Components and codebook come from the training images at the first step.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.config.sections import ModelConfig, component_side
from pivq_jax.model.quantizer import nearest, squared_distances

TAG = 8.0  # size of the numbers that tell runs apart; those of components are about 1
SMALLEST = 1e-6  # of the deviations that are divided by
PASSES = 4  # through the images, for the subspace of the largest variances
SPARE = 64  # directions beyond those wanted, with which the passes converge


class Layout(NamedTuple):
    """Where the components of an image are in its latents."""

    side: int  # pixels of the images whose components are taken
    starts: np.ndarray  # int [N], the first component of each latent
    length: int  # the most components of a latent
    places: np.ndarray  # int [N, length], the component of each number; C: none, a zero
    component_places: np.ndarray  # int [C], where `places`, flat, have each component
    tags: np.ndarray  # float32 [N, D - length], the number of each latent, in signs

    @classmethod
    def of(cls, config: ModelConfig, image_size: int) -> Self:
        """Returns the layout of a model."""
        runs, length, codes = np.array(config.runs), config.longest_run, config.num_codes
        numbers = runs[:-1, None] + np.arange(length)
        places = np.where(numbers < runs[1:, None], numbers, config.num_components)
        bits = np.arange(codes)[:, None] >> np.arange(config.code_dim - length) & 1
        tags = np.where(bits, TAG, -TAG).astype(np.float32)
        used = np.flatnonzero(places < config.num_components)
        return cls(component_side(image_size), runs[:-1], length, places, used, tags)


class Components(nn.Module):
    """The C components of images of any size, [F, C] with F = 3 `side`^2."""

    config: ModelConfig
    image_size: int

    def setup(self) -> None:
        count = self.config.num_components
        self.layout = Layout.of(self.config, self.image_size)
        values = 3 * self.layout.side**2
        self.mean = self.param("mean", nn.initializers.zeros, (values,))
        self.basis = self.param("basis", nn.initializers.normal(values**-0.5), (values, count))
        self.deviations = self.param("deviations", nn.initializers.ones, (count,))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Latents float32 [B, N, D] of images float32 [B, H, W, 3]: the components of each run by
        the deviation of its first, zeros, and the number of the run in signs.
        """
        layout = self.layout
        flat = shrunk(images, layout.side) - self.mean
        values = jnp.matmul(flat, self.basis, precision=jax.lax.Precision.HIGHEST)
        latents = jnp.pad(values, ((0, 0), (0, 1)))[:, layout.places] / self._scales
        tags = jnp.broadcast_to(layout.tags, (images.shape[0], *layout.tags.shape))
        return jnp.concatenate([latents, tags], -1)

    def patterns(self, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns what code vectors float32 [B, N, D] say, each by itself and together.

        These are the components of each vector by their deviations, float32 [B, N, N `length`], of
        which those of other runs are zero, and the sum of the patterns, float32 [B, H, W, 3].
        """
        layout = self.layout
        signs = vectors[..., layout.length :] > 0
        number = jnp.sum(signs * 2 ** np.arange(signs.shape[-1]), -1)
        owner = jax.nn.one_hot(number, len(layout.places))
        values = vectors[..., None, : layout.length] * self._scales
        spread = owner[..., None] * values  # [B, N, N, length]
        deviations = jnp.pad(self._deviations, (0, 1), constant_values=1.0)
        white = spread / deviations[layout.places]
        total = jnp.sum(spread, 1).reshape(vectors.shape[0], -1)[:, layout.component_places]
        flat = jnp.matmul(total, self.basis.T, precision=jax.lax.Precision.HIGHEST) + self.mean
        # Sums of codes of several images may leave the range of images.
        images = jnp.clip(flat, -1, 1).reshape(-1, layout.side, layout.side, 3)
        factor = self.image_size // layout.side
        images = jnp.repeat(jnp.repeat(images, factor, 1), factor, 2)
        return white.reshape(*vectors.shape[:2], -1), images

    @property
    def _deviations(self) -> jax.Array:
        return jnp.maximum(self.deviations, SMALLEST)

    @property
    def _scales(self) -> jax.Array:
        return self._deviations[self.layout.starts, None]


def shrunk(images: jax.Array, side: int) -> jax.Array:
    """Averages images [B, H, W, 3] to a smaller side: float32 [B, 3 side^2]."""
    batch, size = images.shape[:2]
    x = images.reshape(batch, side, size // side, side, size // side, 3)
    return x.mean((2, 4), dtype=jnp.float32).reshape(batch, -1)


def principal_components(
    batches: jax.Array, flatten: Callable[[jax.Array], jax.Array], count: int, key: jax.Array
) -> dict[str, jax.Array]:
    """Finds the `count` largest components of batches [M, B, ...] that `flatten` maps to [B, F].

    By subspace iteration (Halko et al. 2011, arXiv 0909.4061), with a flat batch at a time.
    Returns the parameters of `Components`.
    """
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    size = jax.eval_shape(flatten, batches[0]).shape[1]
    images = batches.shape[0] * batches.shape[1]

    def sum_over(function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> jax.Array:
        def add(total: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
            return total + function(flatten(part)), None

        return jax.lax.scan(add, jnp.zeros(shape), batches)[0] / images

    mean = sum_over(lambda flat: flat.sum(0), (size,))

    def covariance(basis: jax.Array) -> jax.Array:
        return sum_over(
            lambda flat: product((flat - mean).T, product(flat - mean, basis)), basis.shape
        )

    drawn = jax.random.normal(key, (size, min(count + SPARE, size)))
    for _ in range(PASSES):
        basis = jnp.linalg.qr(drawn)[0]
        drawn = covariance(basis)
    # The basis spans the largest components; their directions in it are those of its covariance.
    variances, rotation = jnp.linalg.eigh(product(basis.T, drawn))
    largest = jnp.argsort(-variances)[:count]
    deviations = jnp.sqrt(jnp.maximum(variances[largest], 0.0))
    return {"mean": mean, "basis": product(basis, rotation[:, largest]), "deviations": deviations}


def match_own(latents: jax.Array, codebook: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `match_latents` if each latent has entries of its own, as `own_entries` gives: the nearest
    are distinct, and those of others are never nearer, so a 1 / N of all distances will do.
    """
    count = latents.shape[1]
    own = codebook.reshape(count, -1, codebook.shape[-1])
    cost = squared_distances(latents.swapaxes(0, 1), own)  # [N, B, K / N]
    first = jnp.arange(count, dtype=jnp.int32)[:, None] * own.shape[1]
    return (nearest(cost)[0] + first).T, jnp.isfinite(cost).all((0, 2))
