"""What is done with given images: they are checked, and completed from their visible pixels."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax import sampling
from pivq_jax.sampling import place_prior

# Allow resize overshoot; reject [0, 255] or standardized images.
MAX_ABS_PIXEL = 1.5
TEMPERATURE = 0.9  # of hidden patches that are drawn: the best FID of samples (docs/prior.md)
NEAREST_PARENTS = 64  # parents from which the completion of an image may begin


def check_images(
    images: jax.typing.ArrayLike, size: int, visible: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Checks images, floating point [B, size, size, 3] in [-1, 1] up to overshoot.

    Pixels that are not `visible` (see `check_visible`) are not read, and 0 in what is returned.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        shape = f"[B, {size}, {size}, 3], B at least 1"
        raise ValueError(f"images have shape {images.shape}: give {shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images have dtype {images.dtype}: give floats in [-1, 1]")
    if visible is not None:
        images = jnp.where(check_visible(visible, images.shape) > 0, images, 0)
    low, high = images.min(), images.max()
    if max(-low, high) > MAX_ABS_PIXEL:
        raise ValueError(f"images range from {low:g} to {high:g}: give floats in [-1, 1]")
    return images


def check_visible(visible: jax.typing.ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Checks which pixels are visible, bool [H, W] or [B, H, W]; returns float32 [B, H, W, 1]."""
    visible = jnp.asarray(visible)
    count, height, width = shape[:3]
    if visible.dtype != bool or visible.shape not in ((height, width), (count, height, width)):
        raise ValueError(
            f"visible is {visible.dtype} {visible.shape}: give bool [{height}, {width}] or"
            f" [{count}, {height}, {width}]"
        )
    if not jnp.all(visible.any((-2, -1))):
        raise ValueError("no pixel of an image is visible: use sample or sample_prior")
    return jnp.broadcast_to(visible, shape[:3]).astype(jnp.float32)[..., None]


def first_guess(
    encode: Callable[[jax.Array], jax.Array],
    decode: Callable[[jax.Array], jax.Array],
    space: sampling.CodeSpace,
    parents: np.ndarray | None,
    images: jax.Array,
    visible: jax.Array,
) -> jax.Array:
    """Returns the codes that fit visible pixels best: of the image with hidden ones filled in some
    colour, or of one of the parents that have most codes in common with these.
    """
    mean = jnp.sum(images * visible, (1, 2)) / jnp.sum(visible, (1, 2))
    fills = (mean[:, None, None], jnp.ones(()), jnp.zeros(()))
    guesses = [encode(jnp.where(visible > 0, images, fill)) for fill in fills]
    if parents is not None:
        held = sum(space.multi_hot(np.asarray(guess)) for guess in guesses)
        shared = held @ space.multi_hot(parents).T
        near = np.argsort(-shared, axis=1, kind="stable")[:, :NEAREST_PARENTS]
        guesses += [jnp.asarray(parents[column]) for column in near.T]
    errors = [sampling.visible_error(decode(codes), images, visible) for codes in guesses]
    best = jnp.argmin(jnp.stack(errors), axis=0)
    return jnp.stack(guesses)[best, jnp.arange(len(images))]


def complete_patches(
    space: sampling.CodeSpace,
    codebook: jax.Array,
    parents: np.ndarray | None,
    prior: sampling.Prior | None,
    codes: jax.Array,
    visible: jax.Array,
    start: int = 0,
) -> jax.Array:
    """Completes codes [B, N], of which each is of one patch and says nothing about others.

    Patches that are mostly hidden are drawn from the prior or, without one, are those of the parent
    whose visible patches are most alike, by their latents. If all are mostly hidden, those of which
    most is visible count as visible. `start` is the number of the first image, for the key of the
    draw. Returns int32 [B, N].
    """
    side = math.isqrt(space.places)
    share = visible[..., 0].reshape(len(visible), side, -1, side, visible.shape[2] // side)
    share = share.mean((2, 4)).reshape(len(visible), space.places)
    seen = share >= jnp.minimum(share.max(1, keepdims=True), 0.5)
    if prior is not None:
        known = jnp.take_along_axis(seen, space.places_of(codes, codebook), axis=1)
        assert isinstance(prior.network, sampling.PlacePrior)
        key = jax.random.key(0)
        how = codes, jax.random.fold_in(key, start) if start else key, known, TEMPERATURE
        completed = place_prior.complete(prior.network, prior.params, *how)
        return jnp.where(seen.all(1, keepdims=True), space.canonical(codes), completed)
    if parents is None:
        raise ValueError("hidden patches need parents or a prior, and the model has neither")
    every, own = (space.latents_of(jnp.asarray(each), codebook) for each in (parents, codes))
    chosen = _nearest_parents(every, own, seen)
    return sampling.exchange_places(space, codebook, codes, jnp.asarray(parents)[chosen], ~seen)


@jax.jit
def _nearest_parents(parents: jax.Array, latents: jax.Array, seen: jax.Array) -> jax.Array:
    """The parents [M, P, D] whose latents are nearest to each image's where `seen`: int32 [B]."""

    def nearest(image: tuple[jax.Array, jax.Array]) -> jax.Array:
        apart = jnp.square(parents - image[0]).sum(-1)
        return jnp.argmin(jnp.where(image[1], apart, 0).sum(-1))

    return jax.lax.map(nearest, (latents, seen))
