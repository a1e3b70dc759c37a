"""The initial codebook: k-means on latents of many batches.

The algorithm is that of `ott.tools.k_means`, with the same draws and, on a CPU, the same result. It
is written again because ott-jax sums the latents of a cluster by a scatter, which a GPU does in any
order, so that sums of floats differ and no two runs would begin alike.
"""

import math

import jax
import jax.numpy as jnp

from pivq_jax.model.quantizer import nearest, squared_distances

SAMPLES = 32  # most latents per entry, as memory grows with them
ITERATIONS = 50  # at most
TOLERANCE = 1e-4  # of the sum of the squared distances that the centroids move
# Number of the iteration, centroids, the cluster of each point, and whether nothing moves any more.
State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def initial_codebook(latents: jax.Array, codebook_size: int, key: jax.Array) -> jax.Array:
    """Computes the codebook [K, D] by k-means, started by k-means++, on latents [M, D], M >= K.

    At most `SAMPLES * codebook_size` latents are used, drawn without replacement.
    """
    key_draw, key_start = jax.random.split(key)
    if latents.shape[0] > SAMPLES * codebook_size:
        drawn = jax.random.permutation(key_draw, latents.shape[0])
        latents = latents[drawn[: SAMPLES * codebook_size]]
    return k_means(latents.astype(jnp.float32), codebook_size, jax.random.split(key_start, 1)[0])


def k_means(points: jax.Array, clusters: int, key: jax.Array) -> jax.Array:
    """Finds centroids [K, D] of points [M, D] with the least squared distances (Lloyd 1982).

    Empty clusters get points that are far from their centroids: the i-th cluster, if it is empty,
    the i-th furthest of all points, as in ott-jax.
    """
    # Of so many points the distances from all centroids are in memory: on a CPU in its cache,
    # elsewhere 128 MiB, as fewer would leave an accelerator idle.
    at_once = 64 if jax.default_backend() == "cpu" else max(64, 2**25 // clusters)

    def improve(state: State) -> State:
        iteration, before, owners_before, _ = state

        def find_nearest(point: jax.Array) -> tuple[jax.Array, jax.Array]:
            return nearest(squared_distances(point[None], before)[0])

        owners, distances = jax.lax.map(find_nearest, points, batch_size=at_once)
        centroids = _move(before, points, _fill_empty(owners, distances, clusters))
        moved = jnp.sum((centroids - before) ** 2)
        settled = jnp.all(owners == owners_before) | (moved <= TOLERANCE)
        return iteration + 1, centroids, owners, settled

    def improving(state: State) -> jax.Array:
        iteration, _, _, settled = state
        return ~settled & (iteration < ITERATIONS)

    no_owners = jnp.full(points.shape[0], -1, jnp.int32)
    start = jnp.int32(0), _plus_plus(points, clusters, key), no_owners, jnp.asarray(False)
    return jax.lax.while_loop(improving, improve, start)[1]


def _plus_plus(points: jax.Array, clusters: int, key: jax.Array) -> jax.Array:
    """Draws the first centroids, float32 [K, D], among the points (k-means++, greedy).

    One after another, with probability proportional to the squared distance from the nearest one so
    far; of a few that are drawn, the best one is taken (Arthur and Vassilvitskii 2007).
    """
    trials = 2 + int(math.log(clusters))

    def add(
        number: int | jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, centroids, distances = state
        key_draw, key = jax.random.split(key)
        drawn = jax.random.choice(key_draw, len(points), (trials,), p=distances)
        candidates = points[drawn]
        distances = jnp.minimum(squared_distances(candidates, points), distances)
        best = jnp.argmin(jnp.sum(distances, 1))
        return key, centroids.at[number].set(candidates[best]), distances[best]

    key_draw, key = jax.random.split(key)
    first = points[jax.random.choice(key_draw, len(points))]
    centroids = jnp.zeros((clusters, points.shape[1]), jnp.float32).at[0].set(first)
    start = (key, centroids, squared_distances(first[None], points)[0])
    return jax.lax.fori_loop(1, clusters, add, start)[1]


def _fill_empty(owners: jax.Array, distances: jax.Array, clusters: int) -> jax.Array:
    """Moves the points [M] with the largest distances to the empty clusters, one to each."""
    empty = jnp.bincount(owners, length=clusters) == 0
    far = jax.lax.top_k(distances, clusters)[1]
    moved = jnp.where(empty, jnp.arange(clusters, dtype=jnp.int32), owners[far])
    return owners.at[far].set(moved, unique_indices=True)


def _move(centroids: jax.Array, points: jax.Array, owners: jax.Array) -> jax.Array:
    """Moves centroids to the means of their clusters; those without a point stay.

    The points of a cluster are added one by one, in their order, for all clusters at once.
    """
    sizes = jnp.bincount(owners, length=len(centroids))
    order = jnp.argsort(owners, stable=True)  # the points of the first cluster, of the second, ...
    begin = jnp.cumsum(sizes) - sizes

    def add(number: jax.Array, sums: jax.Array) -> jax.Array:
        point = points[order[jnp.minimum(begin + number, len(points) - 1)]]
        return jnp.where((number < sizes)[:, None], sums + point, sums)

    sums = jax.lax.fori_loop(0, jnp.max(sizes), add, jnp.zeros_like(centroids))
    means = sums * (1.0 / jnp.maximum(sizes, 1).astype(jnp.float32))[:, None]
    return jnp.where((sizes > 0)[:, None], means, centroids)


def own_entries(latents: jax.Array, size: int, key: jax.Array) -> jax.Array:
    """Initializes a codebook [size, D] from latents [M, N, D], size / N entries for each latent.

    Those of latent n are n size / N and the following ones.
    """
    keys = jax.random.split(key, latents.shape[1])
    codebooks = jax.lax.map(
        lambda x: initial_codebook(x[0], size // latents.shape[1], x[1]),
        (latents.swapaxes(0, 1), keys),
    )
    return codebooks.reshape(size, -1)
