"""A learned prior over sets of codes: sets from nothing, and completions of partial sets.

A set has no order, so the prior predicts, from any part of a set, the codes that are still missing.
It is an autoregressive model averaged over all orders (Uria et al. 2014, "A deep and tractable
density estimator"; Hoogeboom et al. 2022, arXiv 2110.02037). With c a random order of the N codes,

    log p(set) >= log N! + E_c sum_m log p(c_m | {c_1, ..., c_(m-1)}),

as each of the N! orders yields the same set. The network sees the known codes without positions and
gives no probability to them, so every set that is drawn has N distinct codes.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from pivq_jax.codes.space import CodeSpace
from pivq_jax.config.sections import PriorConfig
from pivq_jax.model.layers import Block
from pivq_jax.model.primitives import LayerNorm, dense


class SetPrior(nn.Module):
    """Transformer from a partial set of codes to the probabilities of the missing ones."""

    codebook_size: int  # K
    width: int
    depth: int
    heads: int

    @nn.compact
    def __call__(self, codes: jax.Array, known: jax.Array) -> jax.Array:
        """Predicts missing codes from those that are known, bool [B, N]; no others are read.

        Returns log probabilities, float32 [B, K], -inf for known codes.
        """
        embed = nn.Embed(self.codebook_size, self.width, name="codes")
        missing = self.param("missing", nn.initializers.normal(0.02), (self.width,))
        x = jnp.where(known[..., None], embed(jnp.where(known, codes, 0)), missing)
        for i in range(self.depth):
            x = Block(self.heads, name=f"block_{i}")(x)
        x = LayerNorm(jnp.float32, name="norm")(x.mean(1))
        logits = dense(self.codebook_size, jnp.float32, "logits")(x)
        given = jax.nn.one_hot(jnp.where(known, codes, -1), self.codebook_size).any(1)
        return jax.nn.log_softmax(jnp.where(given, -jnp.inf, logits))


class Prior(struct.PyTreeNode):
    """A trained prior, whose only leaves are its parameters."""

    network: SetPrior = struct.field(pytree_node=False)
    params: Any
    # Upper bound on the bits of a set of the validation split; a Python float.
    bits: float = struct.field(pytree_node=False)
    # Whether its training has ended, which may otherwise change its weights.
    finished: bool = struct.field(pytree_node=False, default=True)


def build_prior(space: CodeSpace, settings: PriorConfig) -> SetPrior:
    """Builds the network for the sets of a space."""
    return SetPrior(space.codebook_size, settings.width, settings.depth, settings.heads)


def initial_parameters(prior: SetPrior, key: jax.Array) -> Any:
    """Draws parameters, a tree of float32 arrays."""
    return prior.init(key, jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), bool))["params"]


def parameter_shapes(prior: SetPrior) -> Any:
    """Returns the shapes of `initial_parameters`, without computing them."""
    return jax.eval_shape(partial(initial_parameters, prior), jax.random.key(0))


def _apply(prior: SetPrior, params: Any, codes: jax.Array, known: jax.Array) -> jax.Array:
    result: Any = prior.apply({"params": params}, codes, known)
    return result


def prior_loss(
    prior: SetPrior, params: Any, codes: jax.Array, key: jax.Array, at_once: int | None = None
) -> jax.Array:
    """Estimates `prior_bits` from one random part of each set; the network gets `at_once` sets at a
    time.
    """
    batch, n = codes.shape
    key_order, key_count = jax.random.split(key)
    codes = jax.random.permutation(key_order, codes, axis=1, independent=True)
    # Numbers of known codes are spread evenly, which lowers the variance of the mean.
    start = jax.random.uniform(key_count)
    count = jnp.floor(n * ((jnp.arange(batch) / batch + start) % 1.0)).astype(jnp.int32)
    count = jnp.minimum(count, n - 1)  # the product may round up to n
    known = jnp.arange(n) < count[:, None]
    if at_once is None:
        all_logs = _apply(prior, params, codes, known)
    else:
        all_logs = jax.lax.map(
            lambda part: _apply(prior, params, part[0][None], part[1][None])[0],
            (codes, known),
            batch_size=at_once,
        )
    logs = jnp.take_along_axis(all_logs, codes, axis=1)
    mean = jnp.sum(jnp.where(known, 0.0, logs), axis=1) / (n - count)
    return -(n * mean + math.lgamma(n + 1)) / math.log(2)


@partial(jax.jit, static_argnames=("prior", "orders"))
def prior_bits(
    prior: SetPrior, params: Any, codes: jax.Array, key: jax.Array, orders: int = 16
) -> jax.Array:
    """Computes an upper bound on the bits of each set under the prior.

    The bound averages the probability over random orders (Burda et al. 2016, arXiv 1509.00519); the
    more orders, the tighter it is. Returns float32 [B], in expectation at least -log2 p(set).
    """
    n = codes.shape[1]
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(codes)))

    def of_order(order: jax.Array) -> jax.Array:
        order_keys = jax.vmap(partial(jax.random.fold_in, data=order))(keys)
        ordered = jax.vmap(jax.random.permutation)(order_keys, codes)

        def of_next(m: jax.Array) -> jax.Array:
            known = jnp.broadcast_to(jnp.arange(n) < m, codes.shape)
            logs = _apply(prior, params, ordered, known)
            return jnp.take_along_axis(logs, ordered[:, m][:, None], axis=1)[:, 0]

        return jax.lax.map(of_next, jnp.arange(n)).sum(0)

    logs = jax.lax.map(of_order, jnp.arange(orders))
    log_mean = jax.nn.logsumexp(logs, axis=0) - math.log(orders)
    return -(log_mean + math.lgamma(n + 1)) / math.log(2)


@partial(jax.jit, static_argnames=("prior", "passes"))
def pseudo_likelihood(prior: SetPrior, params: Any, codes: jax.Array, passes: int) -> jax.Array:
    """Adds the log probabilities of the codes of each group, given those of all others: float32 [B]
    (Besag 1975, "Statistical analysis of non-lattice data").

    It needs no random orders, so sets that differ in a few codes are compared without noise. Place
    n is in group n modulo `passes`: give what sets have in common at the same places.
    """
    places, passes = jnp.arange(codes.shape[1]), min(passes, codes.shape[1])

    def of_group(group: jax.Array) -> jax.Array:
        hidden = jnp.broadcast_to(places % passes == group, codes.shape)
        logs = jnp.take_along_axis(_apply(prior, params, codes, ~hidden), codes, axis=1)
        return jnp.sum(jnp.where(hidden, logs, 0.0), axis=1)

    return jax.lax.map(of_group, jnp.arange(passes)).sum(0)


def reveal_counts(missing: int, passes: int) -> np.ndarray:
    """Returns how many codes each pass of the sampler adds, at least 1 each: few at first, as codes
    depend on those there, along a quarter of a cosine (Chang et al. 2022, arXiv 2202.04200).
    """
    passes = min(passes, missing)
    steps = np.arange(1, passes + 1)
    done = np.round(missing * (1 - np.cos(np.pi / 2 * steps / max(passes, 1)))).astype(np.int64)
    # At least one code a pass, and at least one left for each that follows.
    for step in range(passes):
        least = (done[step - 1] if step else 0) + 1
        done[step] = min(max(done[step], least), missing - (passes - 1 - step))
    return np.diff(done, prepend=0)


@partial(jax.jit, static_argnames=("prior", "known", "passes"))
def complete_sets(
    prior: SetPrior,
    params: Any,
    codes: jax.Array,
    key: jax.Array,
    known: int = 0,
    temperature: ArrayLike = 1.0,
    passes: int = 16,
) -> jax.Array:
    """Draws the missing codes of partial sets [B, N], of which the first `known` are given.

    With a positive `temperature` below 1, likely codes are drawn more often. With fewer `passes` of
    the network than missing codes, the codes of one pass are distinct but otherwise drawn without
    regard to each other. Raises ValueError if `passes` or `known` is out of range.
    """
    codes = jnp.asarray(codes, jnp.int32)
    if passes < 1 or not 0 <= known <= codes.shape[1]:
        raise ValueError(f"passes = {passes}, known = {known}: give at least 1, and 0 to N")
    temperature = jnp.maximum(temperature, 1e-6)  # a smaller one may be 0 in float32
    batch, n = codes.shape
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))
    counts = reveal_counts(n - known, passes)
    places, filled = jnp.arange(n), known
    for step, count in enumerate(counts.tolist()):
        given = jnp.broadcast_to(places < filled, (batch, n))
        logs = _apply(prior, params, codes, given)
        step_keys = jax.vmap(partial(jax.random.fold_in, data=step))(keys)
        draw = partial(jax.random.gumbel, shape=logs.shape[1:], dtype=jnp.float32)
        noise = jax.vmap(draw)(step_keys)
        # The largest of the sums are a draw without replacement (Gumbel top-k).
        drawn = jax.lax.top_k(logs / temperature + noise, count)[1]
        codes = jax.lax.dynamic_update_slice(codes, drawn, (0, filled))
        filled += count
    return jnp.sort(codes, axis=-1)
