"""The quantizer: assigns codebook entries to latents, by matching or to the nearest entry.

Kinds of assignment: `matching` (PI-VQ, arXiv 2604.01843) is one to one at minimum cost, so no entry
occurs twice in an image; `nearest` (VQ-VAE: van den Oord et al. 2017, arXiv 1711.00937) is many to
one; `positional` is as `nearest`, and the decoder uses the position of each code.

With several stages (residual quantization: Lee et al. 2022, arXiv 2203.01941), every stage has
entries of its own, and gives each latent a code for what earlier codes left over. As codes have no
position, half of an entry says which latent it belongs to (`place_vectors`), half what it adds.

Distances, assignment and losses are computed in float32 for every dtype of the model.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.matching import match, minima
from pivq_jax.model.primitives import Pair

# Function of latents float32 [B, N, D] and codebook float32 [K, D] that returns indices int32
# [B, N] and converged bool [B]; see `match_latents`.
Matcher = Callable[[jax.Array, jax.Array], Pair]
# Elements of the one-hot rows that a GPU holds at a time for the gradient of a stage's entries. All
# stages are held together.
LARGEST_ONE_HOT = 2**26


class Quantized(NamedTuple):
    """The quantized latents of a batch."""

    vectors: jax.Array  # float32 [B, N, D]; with one stage, their gradients pass to the latents
    indices: jax.Array  # int32 [B, N], the entry of each latent, in the order of the latents
    codebook_loss: jax.Array  # float32 [], pulls entries towards their latents
    commitment_loss: jax.Array  # float32 [], pulls latents towards their entries
    converged: jax.Array  # bool [B], False if the matching has no valid result
    latents: jax.Array  # float32 [B, N / stages, `latent_dim`], the input
    targets: jax.Array  # float32 [B, N, D], what each code stands for; the latents if one stage


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes squared Euclidean distances of all pairs, without an array [..., N, K, D].

    Args:
        x: [..., N, D], such as latents.
        y: [K, D] or [..., K, D], such as the codebook.

    Returns:
        float32 [..., N, K], at least 0.
    """
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    with jax.named_scope("distances"):  # benchmarks/training_step.py looks for this name
        products = jnp.einsum("...nd,...kd->...nk", x, y, precision=jax.lax.Precision.HIGHEST)
        norms = jnp.sum(x**2, -1)[..., :, None] + jnp.sum(y**2, -1)[..., None, :]
        distances = norms - 2 * products
        # Not maximum(): on a CPU it may turn NaN into 0, and a broken image would look valid.
        return jnp.where(distances < 0, 0.0, distances)


@jax.custom_vjp
def look_up(codebook: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns the entries float32 [B, N, D] of indices int32 [B, N].

    The gradient of an indexed array is a scatter, which a GPU does in any order, so that floats
    differ from run to run; there, it is a product with one-hot rows, which is slow on a CPU.
    """
    return codebook[indices]


def _look_up_forward(codebook: jax.Array, indices: jax.Array) -> tuple[jax.Array, Pair]:
    return codebook[indices], (codebook, indices)


def _look_up_backward(saved: Pair, cotangent: jax.Array) -> tuple[jax.Array, None]:
    codebook, indices = saved
    add = partial(_add_rows, len(codebook))
    # XLA fuses one-hot rows with their product on a TPU alone. Batches are split over all devices.
    held = indices.size * len(codebook) / jax.device_count()
    count = indices.shape[1]
    fitting = (n for n in range(1, count) if count % n == 0 and n >= held / LARGEST_ONE_HOT)
    parts = next(fitting, count)
    gradient = jax.lax.platform_dependent(
        indices,
        cotangent,
        cpu=lambda rows, values: jnp.zeros_like(codebook).at[rows].add(values),
        tpu=add,
        default=partial(add, parts=parts),
    )
    return gradient, None


def _add_rows(size: int, rows: jax.Array, values: jax.Array, parts: int = 1) -> jax.Array:
    """Adds values [B, N, D] to the rows int32 [B, N] of zeros [size, D], always in one order.

    N is divided into equal parts, each of which has its one-hot rows in turn.
    """

    def add(total: jax.Array, part: Pair) -> tuple[jax.Array, None]:
        rows, values = part
        one_hot = jax.nn.one_hot(rows.reshape(-1), size, dtype=values.dtype)
        flat = values.reshape(-1, values.shape[-1])
        product = jnp.einsum("mk,md->kd", one_hot, flat, precision=jax.lax.Precision.HIGHEST)
        return total + product, None

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(len(x), parts, -1, *x.shape[2:]).swapaxes(0, 1)

    zeros = jnp.zeros((size, values.shape[-1]), values.dtype)
    if parts == 1:
        return add(zeros, (rows, values))[0]
    return jax.lax.scan(add, zeros, (split(rows), split(values)))[0]


look_up.defvjp(_look_up_forward, _look_up_backward)


def look_up_in_stages(codebook: jax.Array, indices: jax.Array, stages: int) -> jax.Array:
    """Returns entries as `look_up` does, if equal parts of N choose from equal parts of K in turn.

    One-hot rows of its gradient are then shorter by that factor.
    """
    if stages == 1:
        return look_up(codebook, indices)
    parts = split_stages(jnp.asarray(codebook), stages)
    within_stage = split_stages(indices, stages, 1) - first_entries(parts)
    return join_stages(jax.vmap(look_up)(parts, within_stage), 1)


def match_latents(latents: jax.Array, codebook: jax.Array, method: str = "auto") -> Pair:
    """Assigns entries to the latents of each image one to one, at minimum total squared distance.

    Returns indices int32 [B, N], and converged bool [B], which is False if latents are not finite.
    Nothing is solved where all nearest entries are distinct, as is usual with several stages.
    """

    def match_all(latents: jax.Array) -> Pair:
        cost = squared_distances(latents, codebook)
        indices, finite = nearest(cost)[0], jnp.all(jnp.isfinite(cost), (-2, -1))
        in_order = jnp.sort(indices, -1)
        distinct = jnp.all(in_order[..., 1:] != in_order[..., :-1])

        def solve(cost: jax.Array) -> Pair:
            rows, entries = cost.shape[-2:]
            if rows > entries:  # `match` would leave rows without a column
                raise ValueError(f"{rows} latents cannot have distinct ones of {entries} entries")
            result = match(cost, method=method)
            return result.columns, result.converged

        done = distinct & jnp.all(finite)
        return jax.lax.cond(done, lambda _: (indices, finite), solve, cost)

    # A CPU solves one problem after another, and then each one's distances stay in the cache.
    @jax.named_scope("distances")  # a profile shows a loop as one operation, by its own scope
    def one_by_one(latents: jax.Array) -> Pair:
        return jax.lax.map(match_all, latents)

    return jax.lax.platform_dependent(latents, cpu=one_by_one, default=match_all)


def nearest(cost: jax.Array) -> Pair:
    """Returns the column of the least cost of each row, int32 [..., N], the first of equal ones,
    and that cost; `jnp.argmin` is several times slower on a CPU.
    """
    columns = jnp.broadcast_to(jnp.arange(cost.shape[-1], dtype=jnp.int32), cost.shape)
    least, column = minima.least(cost, columns, cost.ndim - 1)
    return jnp.minimum(column, cost.shape[-1] - 1), least  # with NaN, there is no least one


def assign(
    latents: jax.Array, codebook: jax.Array, kind: str, matcher: Matcher = match_latents
) -> Pair:
    """Assigns an entry to each latent as `match_latents` does, without gradients.

    For several devices, `matcher` matches the images of each on that device, as the compiler does
    not partition the loops of a matching.
    """
    latents, codebook = jax.lax.stop_gradient((latents, codebook))
    if kind == "matching":
        return matcher(latents, codebook)
    cost = squared_distances(latents, codebook)
    return nearest(cost)[0], jnp.all(jnp.isfinite(cost), axis=(1, 2))


def place_vectors(count: int, size: int) -> np.ndarray:
    """Returns the vectors that say which latent a code belongs to, float32 [count, size].

    They are fixed and random, so each is far from all others.
    """
    # RandomState's stream is frozen; that of default_rng may change with NumPy's version.
    return np.random.RandomState(0).normal(size=(count, size)).astype(np.float32)


def prepend_places(latents: jax.Array, size: int) -> jax.Array:
    """Puts place vectors before latents [B, L, latent_dim]: float32 [B, L, size + latent_dim]."""
    first = place_vectors(latents.shape[1], size)
    return jnp.concatenate([jnp.broadcast_to(first, (len(latents), *first.shape)), latents], -1)


def places_of(vectors: jax.Array, count: int, latent_dim: int) -> jax.Array:
    """Returns which latent each entry [..., D] belongs to: int32, below `count`.

    It is the one whose place vector is nearest to the first part of the entry.
    """
    first = jax.lax.stop_gradient(vectors[..., :-latent_dim])
    known = jnp.asarray(place_vectors(count, first.shape[-1]))
    return jnp.argmin(squared_distances(first, known), -1).astype(jnp.int32)


def add_by_place(places: jax.Array, values: jax.Array, count: int) -> jax.Array:
    """Adds up values [..., N, size] of the same place, int [..., N]: [..., count, size]."""
    one_hot = jax.nn.one_hot(places, count, dtype=values.dtype)
    return jnp.einsum("...np,...nd->...pd", one_hot, values, precision=jax.lax.Precision.HIGHEST)


def sum_by_place(vectors: jax.Array, count: int, latent_dim: int) -> jax.Array:
    """Adds up what entries float32 [B, N, D] say of latents: float32 [B, count, latent_dim]."""
    places = places_of(vectors, count, latent_dim)
    return add_by_place(places, vectors[..., -latent_dim:], count)


def in_stages(
    latents: jax.Array,
    code_dim: int,
    stages: Any,
    quantize: Callable[[Any, jax.Array], tuple[jax.Array, Any]],
) -> tuple[jax.Array, jax.Array, Any]:
    """Quantizes latents float32 [B, N / stages, latent_dim] stage by stage.

    `quantize` gets a slice of `stages` along the first axis and targets float32 [B, N / stages, D],
    and returns the vectors that stand for them, and anything else. Returns the targets, what is
    left over of the latents, and the rest; the first axis of targets and rest are the stages.
    """
    size = code_dim - latents.shape[-1]

    def step(residual: jax.Array, stage: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        targets = prepend_places(residual, size)
        quantized, other = quantize(stage, targets)
        return residual - quantized[..., size:], (targets, other)

    # A loop, as compilers would take many times as long for the matchings of all stages.
    residual, (targets, others) = jax.lax.scan(step, latents, stages)
    return targets, residual, others


def split_stages(array: jax.Array, stages: int, axis: int = 0) -> jax.Array:
    """Splits an axis into equal parts, one for each stage, and puts their axis first."""
    shape = array.shape
    parts = array.reshape(*shape[:axis], stages, -1, *shape[axis + 1 :])
    return jnp.moveaxis(parts, axis, 0)


def join_stages(parts: jax.Array, axis: int = 0) -> jax.Array:
    """Undoes `split_stages`."""
    parts = jnp.moveaxis(parts, 0, axis)
    shape = parts.shape
    return parts.reshape(*shape[:axis], -1, *shape[axis + 2 :])


def first_entries(parts: jax.Array) -> jax.Array:
    """Returns the first entry of each stage, int32 [stages, 1, 1], of `split_stages`' parts."""
    return parts.shape[1] * jnp.arange(len(parts), dtype=jnp.int32)[:, None, None]


def assign_in_stages(
    latents: jax.Array, codebook: jax.Array, kind: str, matcher: Matcher, stages: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Assigns entries as `assign` does, at every stage those of its own, K / stages.

    Returns indices int32 [B, N], converged bool [B], the targets float32 [B, N, D], and what is
    left over, in the latents' shape.
    """
    latents, codebook = jax.lax.stop_gradient((latents, codebook))

    def quantize(entries: jax.Array, targets: jax.Array) -> tuple[jax.Array, Pair]:
        indices, converged = assign(targets, entries, kind, matcher)
        return entries[indices], (indices, converged)

    parts = split_stages(codebook, stages)
    with jax.named_scope("distances"):  # of the loop, as in `match_latents`
        targets, residual, (indices, converged) = in_stages(
            latents, codebook.shape[1], parts, quantize
        )
    indices += first_entries(parts)
    return join_stages(indices, 1), jnp.all(converged, 0), join_stages(targets, 1), residual


def add_noise(
    latents: jax.Array, code_dim: int, noise: float, key: jax.Array | None = None
) -> jax.Array:
    """Returns what the decoder gets before there is a codebook, float32 [B, L, D]: latents with
    normal noise of this standard deviation, after place vectors if D is larger than they are.
    """
    if noise:
        if key is None:
            raise ValueError(f"noise = {noise} is drawn with a key: give one")
        latents = latents + noise * jax.random.normal(key, latents.shape)
    return prepend_places(latents, code_dim - latents.shape[-1])


class Quantizer(nn.Module):
    """Codebook float32 [K, D] with straight-through assignment."""

    codebook_size: int  # K
    code_dim: int  # D
    kind: str
    matcher: Matcher = match_latents
    stages: int = 1

    def setup(self) -> None:
        self.codebook = self.param(
            "codebook", nn.initializers.normal(1.0), (self.codebook_size, self.code_dim)
        )

    def __call__(self, latents: jax.Array) -> Quantized:
        """Quantizes latents float32 [B, N / stages, `latent_dim`]; returns `Quantized`.

        Gradients pass straight to the latents, unless `ModelConfig.freezes_encoder`.
        """
        indices, converged, targets, residual = assign_in_stages(
            latents, self.codebook, self.kind, self.matcher, self.stages
        )
        entries = look_up_in_stages(self.codebook, indices, self.stages)
        vectors = jax.lax.stop_gradient(entries)
        if self.stages == 1:
            vectors = jax.lax.stop_gradient(entries - latents) + latents
        return Quantized(
            vectors=vectors,
            indices=indices,
            codebook_loss=jnp.mean((targets - entries) ** 2),
            commitment_loss=jnp.mean((latents - jax.lax.stop_gradient(latents - residual)) ** 2),
            converged=converged,
            latents=latents,
            targets=targets,
        )


def revive_dead(
    codebook: jax.Array,
    uses: jax.Array,
    latents: jax.Array,
    indices: jax.Array,
    key: jax.Array,
    threshold: float,
) -> tuple[jax.Array, jax.Array]:
    """Moves dead entries to latents with a large error; also returns which moved, bool [K].

    Dead are those with fewer uses since the last revival than `threshold` times the mean. Latents
    are drawn without replacement, in proportion to their squared error (the k-means++ rule).
    """
    entries = codebook.shape[0]
    flat = latents.reshape(-1, latents.shape[-1])
    error = jnp.sum((flat - codebook[indices.reshape(-1)]) ** 2, -1)
    # Gumbel top-k draws without replacement and in random order, so the r-th draw replaces the
    # r-th dead entry. A batch with fewer latents than dead entries revives as many as it can.
    scores = jnp.log(error + 1e-12) + jax.random.gumbel(key, error.shape)
    drawn = flat[jax.lax.top_k(scores, min(entries, flat.shape[0]))[1]]
    dead = uses < threshold * jnp.mean(uses.astype(jnp.float32))
    rank = jnp.cumsum(dead) - 1
    dead &= rank < drawn.shape[0]
    revived = drawn[jnp.clip(rank, 0, drawn.shape[0] - 1)]
    return jnp.where(dead[:, None], revived, codebook), dead
