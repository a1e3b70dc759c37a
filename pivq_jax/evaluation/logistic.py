"""Multinomial logistic regression with an L1 penalty, for many sets of labels at once.

They are fitted by accelerated proximal gradients (FISTA, Beck and Teboulle 2009, with the restarts
of O'Donoghue and Candes 2015), so that they share one matrix product per iteration.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

# A fit ends when no optimality condition is violated by more than this fraction of the penalty.
TOLERANCE = 0.05
MAX_ITERATIONS = 3_000


class Params(NamedTuple):
    """Weights and biases of all regressions."""

    weights: jax.Array  # f32 [F, A, C]
    bias: jax.Array  # f32 [A, C]


class _Search(NamedTuple):
    params: Params
    ahead: Params  # the point of the next gradient
    momentum: jax.Array  # f32 [A]
    off: jax.Array  # f32 [A], the largest violation of the optimality conditions
    iteration: jax.Array  # int32 []


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.tensordot(x, y, 1, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def fit(
    features: jax.Array,
    labels: jax.Array,
    seen: jax.Array,
    shares: jax.Array,
    start: Params,
    penalty: float,
) -> tuple[Params, jax.Array]:
    """Fits all regressions; returns whether each is within `TOLERANCE` of its optimum, bool [A].

    Features are f32 [M, F], centred, and labels int32 [M, A], of the classes `seen`, bool [A, C].
    `shares`, f32 [M, A], are the weights of images in the loss and sum to 1 over images. `penalty`
    is relative to the smallest one with which all weights are zero.
    """

    def loss(params: Params) -> jax.Array:
        scores = jnp.where(seen, _product(features, params.weights) + params.bias, -1e30)
        entropy = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        return jnp.sum(shares * entropy)

    gradient = jax.grad(loss)
    curvature = _curvature(features, shares)[:, None]  # [A, 1], beside classes
    # With zero weights and equal class shares, the optimal bias is zero.
    null = gradient(jax.tree.map(jnp.zeros_like, start))
    strength = penalty * jnp.max(jnp.abs(null.weights), axis=(0, 2))

    def step(search: _Search) -> _Search:
        slope = gradient(search.ahead)
        weights = search.ahead.weights - slope.weights / curvature
        shrink = strength[:, None] / curvature
        weights = jnp.sign(weights) * jnp.maximum(jnp.abs(weights) - shrink, 0.0)
        params = Params(weights, search.ahead.bias - slope.bias / curvature)
        moved = jax.tree.map(jnp.subtract, params, search.params)
        step_back = jax.tree.map(jnp.subtract, search.ahead, params)
        product = jax.tree.map(jnp.multiply, step_back, moved)
        restart = product.weights.sum((0, 2)) + product.bias.sum(1) > 0
        momentum = jnp.where(restart, 1.0, (1 + jnp.sqrt(1 + 4 * search.momentum**2)) / 2)
        pull = jnp.where(restart, 0.0, (search.momentum - 1) / momentum)[:, None]
        ahead = jax.tree.map(lambda new, change: new + pull * change, params, moved)
        size = jax.tree.map(jnp.abs, step_back)
        off = curvature[:, 0] * jnp.maximum(size.weights.max((0, 2)), size.bias.max(1))
        return _Search(params, ahead, momentum, off, search.iteration + 1)

    def unfinished(search: _Search) -> jax.Array:
        return jnp.any(search.off > TOLERANCE * strength) & (search.iteration < MAX_ITERATIONS)

    ones = jnp.ones_like(strength)
    search = _Search(start, start, ones, jnp.inf * ones, jnp.int32(0))
    search = jax.lax.while_loop(unfinished, step, search)
    return search.params, search.off <= TOLERANCE * strength


def _curvature(features: jax.Array, shares: jax.Array) -> jax.Array:
    """An upper bound on the curvature of the loss of each attribute, f32 [A]."""

    def step(_: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        vector, constant, _ = carry  # [F, A] and, for the bias, [A]
        product = shares * (_product(features, vector) + constant)
        vector, constant = _product(features.T, product), product.sum(0)
        norm = jnp.sqrt(jnp.square(vector).sum(0) + jnp.square(constant))
        return vector / norm, constant / norm, norm

    # Power iteration from a random vector, which is almost surely not orthogonal to the solution.
    shape = (features.shape[1], shares.shape[1])
    vector = jax.random.normal(jax.random.key(0), shape)
    ones = jnp.ones(shape[1])
    largest = jax.lax.fori_loop(0, 50, step, (vector, ones, ones))[2]
    # The curvature of softmax is at most half of it; 10 % more, as the iteration underestimates.
    return 0.55 * largest
