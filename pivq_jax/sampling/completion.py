"""Completion of images of which only some pixels are visible.

The codes sought are the set S that minimizes

    E(S) = |x - decode(S)|^2 / (2 V) - log p(S),

where the distance is that of the visible pixels x and p is the prior over sets, or uniform without
one. Each step makes candidates by descent through the decoder and by the prior, and takes the best
one if it is better than S, until no candidate is.

With g the gradient of the first term at the code vectors, replacing code s by entry k changes E by
about c(s, k) = g_s (k - s) - log p(k | S - s) + log p(s | S - s). Candidates are the matchings of
least c(s, k) + |k - s|^2 / (2 t), proximal gradient steps of several lengths t, and the single
replacements for which c, or the part of it that is the prior's, is least.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.codes.space import CodeSpace
from pivq_jax.matching import match
from pivq_jax.model.quantizer import squared_distances
from pivq_jax.sampling.prior import Prior

# V, in units of squared differences of pixels in [0, 1]. It is more than reconstructions err, as
# errors of neighbouring pixels are alike.
VARIANCE = 0.01
LENGTHS = tuple(4.0**i for i in range(5))  # t
SINGLE = 12  # replacements of one code, of each of two kinds
LEAST_LOG = -20.0  # of the prior's probabilities, which may be zero
LEAST_GAIN = 1e-2  # smaller improvements end the descent
MOST_STEPS = 64

NEAREST_PARENTS = 64  # parents from which the completion of an image may begin

# Codes int32 [B, N], whether the last step improved them, bool [B], and the number of steps.
State = tuple[jax.Array, jax.Array, jax.Array]


def visible_error(decoded: jax.Array, images: jax.Array, visible: jax.Array) -> jax.Array:
    """Sums the squared errors of the visible pixels of images, float32 [..., H, W, 3] in [-1, 1],
    on the scale of [0, 1]: float32 [...]. `visible` is [..., H, W, 1], 1 or 0.
    """
    difference = jnp.where(visible > 0, decoded - images, 0)  # hidden pixels may be NaN
    return jnp.sum(jnp.square(difference / 2) * visible, axis=(-3, -2, -1))


def fit_visible(
    space: CodeSpace,
    codebook: jax.Array,
    decode: Callable[[jax.Array], jax.Array],
    codes: jax.Array,
    images: jax.Array,
    visible: jax.Array,
    prior: Prior | None = None,
) -> jax.Array:
    """Changes codes, int32 [B, N], until the visible pixels of their images fit best.

    `decode` maps code vectors float32 [B, N, D] to images; for these and `visible` see
    `visible_error`. Codes of multisets are changed without regard to each other.
    """

    def energy(vectors: jax.Array) -> jax.Array:
        return visible_error(decode(vectors).clip(-1, 1), images, visible) / (2 * VARIANCE)

    def goes_on(state: State) -> jax.Array:
        _, improved, steps_done = state
        return jnp.any(improved) & (steps_done < MOST_STEPS)

    def step(state: State) -> State:
        codes, _, steps_done = state
        vectors = codebook[codes]
        current, pull_back = jax.vjp(energy, vectors)
        (gradient,) = pull_back(jnp.ones_like(current))
        linear = jnp.einsum("bnd,kd->bnk", gradient, codebook)
        linear -= jnp.take_along_axis(linear, codes[..., None], axis=-1)
        gain = jnp.zeros_like(linear) if prior is None else _log_gain(prior, codes)
        change = linear - gain
        itself = jax.nn.one_hot(codes, len(codebook), dtype=bool)
        distance = jnp.where(itself, 0.0, squared_distances(vectors, codebook))

        lengths = jnp.array(LENGTHS)[:, None, None]
        cost = change[:, None] + distance[:, None] / (2 * lengths)
        if space.distinct:
            steps, excluded = match(cost, space.method).columns, itself.any(1, keepdims=True)
        else:
            steps, excluded = jnp.argmin(cost, -1).astype(jnp.int32), itself
        kinds = [change] if prior is None else [change, -gain]
        singles = [_replacements(codes, jnp.where(excluded, jnp.inf, kind)) for kind in kinds]
        candidates = jnp.concatenate([steps, *singles], axis=1)  # [B, C, N]

        energies = jax.lax.map(lambda codes: energy(codebook[codes]), candidates.swapaxes(0, 1)).T
        # Sums of single changes; exact for one replacement.
        gains = jnp.take_along_axis(gain[:, None], candidates[..., None], axis=-1)[..., 0].sum(-1)
        energies -= gains
        best = jnp.argmin(energies, axis=1)[:, None]
        improved = jnp.take_along_axis(energies, best, axis=1)[:, 0] < current - LEAST_GAIN
        chosen = jnp.take_along_axis(candidates, best[..., None], axis=1)[:, 0]
        return jnp.where(improved[:, None], chosen, codes), improved, steps_done + 1

    start = (codes, jnp.ones(len(codes), bool), jnp.int32(0))
    return jnp.sort(jax.lax.while_loop(goes_on, step, start)[0], axis=-1)


def _log_gain(prior: Prior, codes: jax.Array) -> jax.Array:
    """log p(k | S - s) - log p(s | S - s) for each code s of S and each entry k, [B, N, K]."""
    batch, n = codes.shape
    others = jnp.broadcast_to(~jnp.eye(n, dtype=bool), (batch, n, n))
    repeated = jnp.broadcast_to(codes[:, None], (batch, n, n))
    logs = prior.network.apply(
        {"params": prior.params}, repeated.reshape(-1, n), others.reshape(-1, n)
    )
    logs = jnp.maximum(jnp.asarray(logs).reshape(batch, n, -1), LEAST_LOG)
    return logs - jnp.take_along_axis(logs, codes[..., None], axis=-1)


def _replacements(codes: jax.Array, scores: jax.Array) -> jax.Array:
    """The sets with one code replaced whose scores [B, N, K] are least, int32 [B, SINGLE, N]."""
    _, n, size = scores.shape
    count = min(SINGLE, n * size)
    best, flat = jax.lax.top_k(-scores.reshape(len(codes), -1), count)
    place, entry = flat // size, flat % size
    replaced = (jnp.arange(n) == place[..., None]) & jnp.isfinite(best)[..., None]
    return jnp.where(replaced, entry[..., None], codes[:, None])


def first_guess(
    encode: Callable[[jax.Array], jax.Array],
    decode: Callable[[jax.Array], jax.Array],
    space: CodeSpace,
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
        guessed = np.sum([space.multi_hot(np.asarray(guess)) for guess in guesses], axis=0)
        shared = np.stack([row[parents].sum(1) for row in guessed])  # codes are fewer than entries
        near = np.argsort(-shared, axis=1, kind="stable")[:, :NEAREST_PARENTS]
        guesses += [jnp.asarray(parents[column]) for column in near.T]
    errors = [visible_error(decode(codes), images, visible) for codes in guesses]
    best = jnp.argmin(jnp.stack(errors), axis=0)
    return jnp.stack(guesses)[best, jnp.arange(len(images))]
