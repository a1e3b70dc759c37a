"""A prior over the sets of codes of models with several stages: one place after another.

Each place has a code of every stage, out of the entries that belong to it at this stage. The prior
draws the places row by row and, within a place, one stage after another (Lee et al. 2022, arXiv
2203.01941), given the latents that the codes of earlier places add up to. A causal transformer sees
these latents in the order in which they are drawn, each with its own place and the next place
(Pannatier et al. 2024, arXiv 2404.09562), so places whose codes are given can come first.
"""

import dataclasses
import math
from functools import partial
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pivq_jax.common.errors import InputError
from pivq_jax.model.layers import Mlp, positions_2d
from pivq_jax.model.primitives import LayerNorm, dense, gelu
from pivq_jax.sampling.space import CodeSpace

MOST_PADDING = 32  # of the tables of slots, relative to the codebook; a trained one needs two
AT_ONCE = 32  # sets judged together, which bounds the memory used
Cache = tuple[jax.Array, jax.Array]  # keys and values of a block, [B, P, heads, W / heads]


@dataclasses.dataclass(frozen=True, eq=False)
class Slots:
    """The entries of P places and S stages, at most C of d numbers each; static under `jax.jit`."""

    slot: np.ndarray  # int32 [K], place * S + stage of each entry
    index: np.ndarray  # int32 [K], which of the entries of its slot it is
    entries: np.ndarray  # int32 [P, S, C], -1 beyond the last one
    values: np.ndarray  # float32 [P, S, C, d], 0 beyond

    @classmethod
    def of(cls, space: CodeSpace, codebook: jax.Array) -> Self:
        """Sorts the entries float32 [K, D] of a space with places.

        Raises InputError if a place has none at a stage, or nearly all belong to a few places.
        """
        places, size = space.places, space.codebook_size
        stages, slot = space.num_codes // places, space.slots_of(codebook)
        counts = np.bincount(slot, minlength=places * stages)
        if not counts.all():
            place, stage = divmod(int(counts.argmin()), stages)
            raise InputError(
                f"the codebook has no entry for place {place} at stage {stage}, and a prior needs"
                " one for each: train the model for longer, or with a larger codebook"
            )
        if counts.size * counts.max() > MOST_PADDING * size:
            raise InputError(
                "nearly all entries of the codebook belong to a few places, as in no trained model"
            )
        order = np.argsort(slot, kind="stable")
        index = np.empty(size, np.int32)
        index[order] = np.arange(size) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.full((counts.size, counts.max()), -1, np.int32)
        entries[slot, index] = np.arange(size)
        entries = entries.reshape(places, stages, -1)
        numbers = np.asarray(codebook)[:, codebook.shape[1] // 2 :]
        values = np.where(entries[..., None] >= 0, numbers[entries], 0)
        return cls(slot.astype(np.int32), index, entries, values)

    def table(self, codes: jax.Array, known: jax.Array | bool = True) -> jax.Array:
        """Sorts known codes int32 [B, M] into slots: int32 [B, P, S], indices of entries, or -1.

        Of two in one slot, which is rare, one is left out.
        """
        places, stages, _ = self.entries.shape
        to = jnp.where(known, jnp.asarray(self.slot)[codes], places * stages)
        table = jnp.full((len(codes), places * stages), -1)
        rows = jnp.arange(len(codes))[:, None]
        table = table.at[rows, to].max(jnp.asarray(self.index)[codes], mode="drop")
        return table.reshape(-1, places, stages)

    def fits(self, codes: np.ndarray) -> np.ndarray:
        """Whether the codes of images, int [M, N], have one in each slot: bool [M]."""
        slots = np.sort(self.slot[codes], axis=1)
        return np.all(np.diff(slots, axis=1) > 0, axis=1)


class CausalBlock(nn.Module):
    """Pre-norm transformer block in which each token sees those before it."""

    heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, cache: Cache | None = None, at: ArrayLike = 0
    ) -> tuple[jax.Array, Cache]:
        """Maps x [B, T, W] to [B, T, W]; with a cache of earlier tokens, x begins at token `at`."""
        width, norm = x.shape[-1], partial(LayerNorm, jnp.float32)
        y = norm(name="attention_norm")(x)
        query, key, value = (
            dense(width, jnp.float32, name)(y).reshape(*y.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        query, key = norm(name="query_norm")(query), norm(name="key_norm")(key)
        if cache is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=1)
                for old, new in zip(cache, (key, value), strict=True)
            )
        seen = jnp.arange(key.shape[1]) <= at + jnp.arange(x.shape[1])[:, None]
        y = jax.nn.dot_product_attention(query, key, value, mask=seen[None, None])
        x = x + dense(width, jnp.float32, "out")(y.reshape(x.shape))
        return x + Mlp(name="mlp")(norm(name="mlp_norm")(x)), (key, value)


class PlacePrior(nn.Module):
    """Transformer from the latents of some places to the probabilities of codes of other places."""

    slots: Slots
    width: int
    depth: int
    heads: int

    def setup(self) -> None:
        """Makes the layers; scales are those of latents whose codes are drawn independently."""
        values, has = self.slots.values, (self.slots.entries >= 0)[..., None]
        places, stages, _, size = values.shape
        count = np.maximum(has.sum(2), 1)
        means = values.sum(2) / count
        variance = (np.square(values).sum(2) / count - np.square(means)).mean(0).sum(0)
        self.mean, self.scale = means.sum(1), np.sqrt(variance + 1e-12)
        spread = np.sqrt(np.square(values).sum((0, 2, 3)) / (has.sum((0, 2, 3)) * size) + 1e-12)
        features = values / spread[:, None, None]

        self.start = self.param("start", nn.initializers.normal(1.0), (self.width,))
        self.latent = dense(self.width, jnp.float32, "latent")
        self.place = dense(self.width, jnp.float32, "place")
        self.target = dense(self.width, jnp.float32, "target")
        side = math.ceil(math.sqrt(places))
        self.positions = positions_2d(side, side, 4 * math.ceil(self.width / 4))[:places]
        self.blocks = [CausalBlock(self.heads) for _ in range(self.depth)]
        self.norm = LayerNorm(jnp.float32)

        self.context = dense(self.width, jnp.float32, "context")
        self.sum = dense(self.width, jnp.float32, "sum")
        self.stages = nn.Embed(stages, self.width)
        self.hidden_norm, self.query_norm = LayerNorm(jnp.float32), LayerNorm(jnp.float32)
        self.hidden = dense(self.width, jnp.float32, "hidden")
        self.query = dense(2 * size, jnp.float32, "query", nn.initializers.zeros)
        # With its values and their squares, an entry can be as likely as under a normal density.
        self.entries = self.param(
            "entries", lambda _: jnp.concatenate([features, features**2 - 1], -1, jnp.float32)
        )
        self.bias = self.param("bias", nn.initializers.zeros, self.slots.entries.shape)

    def contexts(self, latents: jax.Array, order: jax.Array) -> jax.Array:
        """Summarizes the latents [B, P, d] before each place of an order: float32 [B, P, W]."""
        given = jnp.take_along_axis(latents, order[..., None], axis=1)[:, :-1]
        start = jnp.broadcast_to(self.start, (len(given), 1, self.width))
        x = jnp.concatenate([start, self._tokens(given, order[:, :-1])], 1)
        x = x + self.target(jnp.asarray(self.positions)[order])
        for block in self.blocks:
            x, _ = block(x)
        return self.norm(x)

    def next_context(
        self,
        latent: jax.Array,
        place: jax.Array,
        target: jax.Array,
        cache: list[Cache],
        at: jax.Array,
    ) -> tuple[jax.Array, list[Cache]]:
        """As `contexts`, for the place with number `at` alone: float32 [B, W], and the cache."""
        x = jnp.where(at == 0, self.start, self._tokens(latent[:, None], place[:, None]))
        x = x + self.target(jnp.asarray(self.positions)[target][:, None])
        caches = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, block_cache = block(x, block_cache, at)
            caches.append(block_cache)
        return self.norm(x)[:, 0], caches

    def query_of(self, context: jax.Array, before: jax.Array, stage: jax.Array) -> jax.Array:
        """Computes what entries of a stage are compared with, given the sum [..., d] before it."""
        x = gelu(self.context(context) + self.sum(before / self.scale) + self.stages(stage))
        x = x + self.hidden(gelu(self.hidden_norm(x)))
        return self.query(self.query_norm(x)) / math.sqrt(self.entries.shape[-1])

    def log_probabilities(self, query: jax.Array, place: jax.Array, stage: jax.Array) -> jax.Array:
        """Log probabilities of the entries of a slot for each image, float32 [B, C]."""
        logits = jnp.einsum("bf,bcf->bc", query, self.entries[place, stage])
        return self._normalized(logits + self.bias[place, stage], place, stage)

    def __call__(self, table: jax.Array, order: jax.Array) -> jax.Array:
        """Log probabilities of the codes of a `table`, drawn in an order: float32 [B, P, S]."""
        places, stages, _, _ = self.slots.values.shape
        rows, columns = jnp.arange(places)[:, None], jnp.arange(stages)
        values = jnp.asarray(self.slots.values)[rows, columns, table]
        inverse = jnp.argsort(order, axis=1)
        contexts = self.contexts(values.sum(2), order)
        contexts = jnp.take_along_axis(contexts, inverse[..., None], axis=1)[:, :, None]
        query = self.query_of(contexts, jnp.cumsum(values, 2) - values, columns)
        logits = jnp.einsum("bpsf,pscf->bpsc", query, self.entries) + self.bias
        logs = self._normalized(logits, rows, columns)
        return jnp.take_along_axis(logs, table[..., None], axis=-1)[..., 0]

    def _tokens(self, latents: jax.Array, places: jax.Array) -> jax.Array:
        latents = (latents - jnp.asarray(self.mean)[places]) / self.scale
        return self.latent(latents) + self.place(jnp.asarray(self.positions)[places])

    def _normalized(self, logits: jax.Array, place: jax.Array, stage: jax.Array) -> jax.Array:
        has = jnp.asarray(self.slots.entries)[place, stage] >= 0
        return jax.nn.log_softmax(jnp.where(has, logits, -jnp.inf))


def bits_in_order(
    prior: PlacePrior, params: Any, codes: jax.Array, order: jax.Array, at_once: int = AT_ONCE
) -> jax.Array:
    """The bits of sets drawn in an order of places, `at_once` sets at a time: infinite for those
    without a code in a slot.
    """

    def bits_of(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        codes, order = part
        table = prior.slots.table(codes[None])
        logs: Any = prior.apply({"params": params}, jnp.maximum(table, 0), order[None])
        bits = -jnp.sum(logs) / math.log(2)
        return jnp.where((table >= 0).all(), bits, jnp.inf)

    return jax.lax.map(bits_of, (codes, order), batch_size=at_once)


def by_rows(given: jax.Array) -> jax.Array:
    """Orders places row by row, those that are given first: int32 [B, P] of bool [B, P]."""
    places = given.shape[1]
    return jnp.argsort(jnp.arange(places) + places * ~given, axis=1).astype(jnp.int32)


def random_orders(prior: PlacePrior, key: jax.Array, count: int) -> jax.Array:
    """Draws orders for training: in half of them no place is given, in the others any number."""
    key_share, key_places = jax.random.split(key)
    share = jax.random.uniform(key_share, (count, 1)) * (jnp.arange(count) % 2)[:, None]
    places = prior.slots.entries.shape[0]
    return by_rows(jax.random.uniform(key_places, (count, places)) < share)


@partial(jax.jit, static_argnames="prior")
def draw_places(
    prior: PlacePrior,
    params: Any,
    codes: jax.Array,
    keys: jax.Array,
    known: jax.Array,
    temperature: ArrayLike,
) -> jax.Array:
    """Draws the codes of sets int32 [B, N] that are not `known`, bool [B, N] or [N].

    Each set has a key of its own.
    """
    slots, apply = prior.slots, partial(prior.apply, {"params": params})
    batch, (places, stages, most) = len(codes), slots.entries.shape
    given = slots.table(codes, known)
    order = by_rows((given >= 0).all(-1))  # places that are given come first

    def of_place(number: jax.Array, state: tuple) -> tuple:
        latent, before, cache, made = state
        place = order[:, number]
        result: Any = apply(latent, before, place, cache, number, method="next_context")
        context, cache = result

        def of_stage(stage: jax.Array, state: tuple) -> tuple:
            latent, row = state
            query = apply(context, latent, stage, method="query_of")
            logs: Any = apply(query, place, stage, method="log_probabilities")
            draw_keys = jax.vmap(partial(jax.random.fold_in, data=number * stages + stage))(keys)
            draw = partial(jax.random.gumbel, shape=(most,), dtype=jnp.float32)
            noise = jax.vmap(draw)(draw_keys)
            drawn = jnp.argmax(logs / temperature + noise, -1)
            asked = given[jnp.arange(batch), place, stage]
            chosen = jnp.where(asked >= 0, asked, drawn)
            latent += jnp.asarray(slots.values)[place, stage, chosen]
            entry = jnp.asarray(slots.entries)[place, stage, chosen]
            return latent, row.at[:, stage].set(entry)

        blank = jnp.zeros_like(latent), jnp.zeros((batch, stages), jnp.int32)
        latent, row = jax.lax.fori_loop(0, stages, of_stage, blank)
        made = jax.lax.dynamic_update_slice_in_dim(made, row[:, None], number, axis=1)
        return latent, place, cache, made

    shape = batch, places, prior.heads, prior.width // prior.heads
    keys_and_values = jnp.zeros(shape, jnp.float32)
    cache = [(keys_and_values, keys_and_values)] * prior.depth
    start = jnp.zeros((batch, slots.values.shape[-1]), jnp.float32), order[:, 0], cache
    made = jnp.zeros((batch, places, stages), jnp.int32)
    *_, made = jax.lax.fori_loop(0, places, of_place, (*start, made))
    return jnp.sort(made.reshape(batch, -1), axis=-1)
