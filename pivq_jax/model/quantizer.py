"""The quantizer: latents become codebook entries, one to one (matching) or each its nearest.

Kinds (`kind`):

- `matching`: PI-VQ. A minimum-cost one-to-one assignment of the N latents of an image to the K
  codebook entries (arXiv 2604.01843), so no entry occurs twice in an image.
- `nearest`: the VQ-VAE assignment (van den Oord et al. 2017, arXiv 1711.00937), many to one.
- `positional`: `nearest`, and the decoder knows each code's place.

Distances, assignment and losses are float32 whatever the model's dtype is.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.matching import match

KINDS = ("matching", "nearest", "positional")
# (latents f32 [B, N, D], codebook f32 [K, D]) -> columns int32 [B, N], converged bool [B]
Matcher = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
KMEANS_SAMPLES = 32  # latents an entry that k-means sees at most: its memory grows with them


class Quantized(NamedTuple):
    """What the quantizer makes of one batch of latents."""

    vectors: jax.Array  # f32 [B, N, D]: straight-through, gradients reach the latents
    columns: jax.Array  # int32 [B, N]: the entry of each latent
    codebook_loss: jax.Array  # f32 []: moves entries to their latents
    commitment_loss: jax.Array  # f32 []: moves latents to their entries
    converged: jax.Array  # bool [B]: False where the matching found no valid answer
    latents: jax.Array  # f32 [B, N, D]: as they came


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared Euclidean distances of all pairs of vectors, without an array [..., N, K, D].

    Args:
        x: [..., N, D], such as latents.
        y: [K, D], such as the codebook, or [..., K, D].

    Returns:
        f32 [..., N, K], at least 0.
    """
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    with jax.named_scope("distances"):  # benchmarks/training_step.py looks for this name
        products = jnp.einsum("...nd,...kd->...nk", x, y, precision=jax.lax.Precision.HIGHEST)
        norms = jnp.sum(x**2, -1)[..., :, None] + jnp.sum(y**2, -1)[..., None, :]
        distances = norms - 2 * products
        # Not maximum(): on CPU it may turn NaN into 0, and a broken image would look valid.
        return jnp.where(distances < 0, 0.0, distances)


def match_latents(
    latents: jax.Array, codebook: jax.Array, method: str = "auto"
) -> tuple[jax.Array, jax.Array]:
    """The codebook entry of each latent, one to one in each image, at the least total distance.

    Args:
        latents: f32 [B, N, D].
        codebook: f32 [K, D], K >= N.
        method: the solver, see `pivq_jax.matching.match`.

    Returns:
        columns int32 [B, N], and converged bool [B]: False where latents were not finite.
    """
    result = match(squared_distances(latents, codebook), method=method)
    return result.columns, result.converged


def assign(
    latents: jax.Array, codebook: jax.Array, kind: str, matcher: Matcher = match_latents
) -> tuple[jax.Array, jax.Array]:
    """The codebook entry of each latent; no gradient flows through it.

    Args:
        latents: f32 [B, N, D].
        codebook: f32 [K, D].
        kind: one of `KINDS`.
        matcher: what assigns for `matching`. Whoever compiles for several devices gives one that
            matches the images of each device there, as no compiler splits its loops by itself.

    Returns:
        columns int32 [B, N], and converged bool [B]: False where latents were not finite.
    """
    if kind == "matching":
        return matcher(jax.lax.stop_gradient(latents), jax.lax.stop_gradient(codebook))
    cost = squared_distances(latents, codebook)
    return jnp.argmin(cost, -1).astype(jnp.int32), jnp.all(jnp.isfinite(cost), axis=(1, 2))


class Quantizer(nn.Module):
    """Codebook f32 [K, D] with straight-through assignment."""

    codebook_size: int  # K
    code_dim: int  # D
    kind: str
    matcher: Matcher = match_latents

    def setup(self) -> None:
        self.codebook = self.param(
            "codebook", nn.initializers.normal(1.0), (self.codebook_size, self.code_dim)
        )

    def __call__(self, latents: jax.Array) -> Quantized:
        """latents f32 [B, N, D] -> Quantized."""
        columns, converged = assign(latents, self.codebook, self.kind, self.matcher)
        entries = self.lookup(columns)
        return Quantized(
            vectors=latents + jax.lax.stop_gradient(entries - latents),
            columns=columns,
            codebook_loss=jnp.mean((jax.lax.stop_gradient(latents) - entries) ** 2),
            commitment_loss=jnp.mean((latents - jax.lax.stop_gradient(entries)) ** 2),
            converged=converged,
            latents=latents,
        )

    def lookup(self, columns: jax.Array) -> jax.Array:
        """columns int32 [B, N] -> f32 [B, N, D]."""
        return self.codebook[columns]


def count_uses(columns: jax.Array, codebook_size: int) -> jax.Array:
    """How many latents of the batch chose each entry, int32 [B, N] -> int32 [K]."""
    return jnp.zeros(codebook_size, jnp.int32).at[columns.reshape(-1)].add(1)


def initial_codebook(latents: jax.Array, codebook_size: int, key: jax.Array) -> jax.Array:
    """Delayed initialisation: k-means (k-means++ start) over latents of many batches.

    Of more than `KMEANS_SAMPLES * codebook_size` latents, so many are drawn.

    Args:
        latents: f32 [M, D], finite, with M >= codebook_size.
        codebook_size: K, the number of codebook entries.
        key: a PRNG key.

    Returns:
        f32 [K, D]: the centroids.
    """
    from ott.tools import k_means

    if latents.shape[0] < codebook_size:
        raise ValueError(
            f"k-means needs at least codebook_size = {codebook_size} latents, got"
            f" {latents.shape[0]}: raise quantizer.init_batches"
        )
    key_draw, key_start = jax.random.split(key)
    if latents.shape[0] > KMEANS_SAMPLES * codebook_size:
        drawn = jax.random.permutation(key_draw, latents.shape[0])
        latents = latents[drawn[: KMEANS_SAMPLES * codebook_size]]
    result = k_means.k_means(
        latents.astype(jnp.float32), codebook_size, n_init=1, max_iterations=50, rng=key_start
    )
    return result.centroids


def revive_dead(
    codebook: jax.Array,
    uses: jax.Array,
    latents: jax.Array,
    columns: jax.Array,
    key: jax.Array,
    threshold: float,
) -> tuple[jax.Array, jax.Array]:
    """Move dead entries onto latents that are badly served.

    An entry is dead if it was used less than `threshold` times the mean. Each dead entry takes a
    latent of the batch, drawn without replacement with probability proportional to its squared
    distance from its own entry (the k-means++ rule), so that new entries arise where the error is.

    Args:
        codebook: f32 [K, D].
        uses: int32 [K], counted since the last revival.
        latents: f32 [B, N, D]; columns: int32 [B, N], their entries.
        key: a PRNG key.
        threshold: as a fraction of the mean use.

    Returns:
        the new codebook f32 [K, D] and the mask of revived entries bool [K].
    """
    entries = codebook.shape[0]
    flat = latents.reshape(-1, latents.shape[-1])
    error = jnp.sum((flat - codebook[columns.reshape(-1)]) ** 2, -1)
    # Gumbel top-k draws without replacement; the order of the draw is random, so rank r serves
    # the r-th dead entry. A batch with fewer latents than dead entries revives only so many.
    scores = jnp.log(error + 1e-12) + jax.random.gumbel(key, error.shape)
    drawn = flat[jax.lax.top_k(scores, min(entries, flat.shape[0]))[1]]
    dead = uses < threshold * jnp.mean(uses.astype(jnp.float32))
    rank = jnp.cumsum(dead) - 1
    dead &= rank < drawn.shape[0]
    revived = drawn[jnp.clip(rank, 0, drawn.shape[0] - 1)]
    return jnp.where(dead[:, None], revived, codebook), dead
