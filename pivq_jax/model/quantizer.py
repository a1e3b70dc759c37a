"""The quantizer: assigns codebook entries to latents, by matching or to the nearest entry.

Kinds of assignment: `matching` (PI-VQ, arXiv 2604.01843) is one to one at minimum cost, so no entry
occurs twice in an image; `nearest` (VQ-VAE: van den Oord et al. 2017, arXiv 1711.00937) is many to
one; `positional` is as `nearest`, and the decoder uses the position of each code.

Distances, assignment and losses are computed in float32 for every dtype of the model.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.matching import match, minima
from pivq_jax.model.primitives import Pair

# Function of latents float32 [B, N, D] and codebook float32 [K, D] that returns indices int32
# [B, N] and converged bool [B]; see `match_latents`.
Matcher = Callable[[jax.Array, jax.Array], Pair]
# Elements of the one-hot rows that a GPU holds at a time for the gradient of the entries.
LARGEST_ONE_HOT = 2**26


class Quantized(NamedTuple):
    """The quantized latents of a batch."""

    vectors: jax.Array  # float32 [B, N, D], whose gradients pass to the latents
    indices: jax.Array  # int32 [B, N], the entry of each latent, in the order of the latents
    codebook_loss: jax.Array  # float32 [], pulls entries towards their latents
    commitment_loss: jax.Array  # float32 [], pulls latents towards their entries
    converged: jax.Array  # bool [B], False if the matching has no valid result
    latents: jax.Array  # float32 [B, N, D], the input


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes squared Euclidean distances of all pairs, without an array [..., N, K, D].

    Args:
        x: [..., N, D], such as latents.
        y: [K, D] or [..., K, D], such as the codebook.

    Returns:
        float32 [..., N, K], at least 0.
    """
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    with jax.named_scope("distances"):  # profiles have it by this name
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
    elements = indices.size * len(codebook) / jax.device_count()
    count = indices.shape[1]
    fitting = (n for n in range(1, count) if count % n == 0 and n >= elements / LARGEST_ONE_HOT)
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


def match_latents(latents: jax.Array, codebook: jax.Array, method: str = "auto") -> Pair:
    """Assigns entries to the latents of each image one to one, at minimum total squared distance.

    Returns indices int32 [B, N], and converged bool [B], which is False if latents are not finite.
    Nothing is solved where all nearest entries are distinct.
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


@jax.named_scope("distances")
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


def add_noise(latents: jax.Array, noise: float, key: jax.Array | None = None) -> jax.Array:
    """Returns what the decoder gets before there is a codebook, float32 [B, N, D]: latents with
    normal noise of this standard deviation.
    """
    if not noise:
        return latents
    if key is None:
        raise ValueError(f"noise = {noise} is drawn with a key: give one")
    return latents + noise * jax.random.normal(key, latents.shape)


class Quantizer(nn.Module):
    """Codebook float32 [K, D] with straight-through assignment."""

    codebook_size: int  # K
    code_dim: int  # D
    kind: str
    matcher: Matcher = match_latents

    def setup(self) -> None:
        self.codebook = self.param(
            "codebook", nn.initializers.normal(1.0), (self.codebook_size, self.code_dim)
        )

    def __call__(self, latents: jax.Array) -> Quantized:
        """Quantizes latents float32 [B, N, D]; gradients pass straight to them."""
        indices, converged = assign(latents, self.codebook, self.kind, self.matcher)
        entries = look_up(self.codebook, indices)
        vectors = jax.lax.stop_gradient(entries - latents) + latents
        return Quantized(
            vectors=vectors,
            indices=indices,
            codebook_loss=jnp.mean((jax.lax.stop_gradient(latents) - entries) ** 2),
            commitment_loss=jnp.mean((latents - jax.lax.stop_gradient(vectors)) ** 2),
            converged=converged,
            latents=latents,
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
