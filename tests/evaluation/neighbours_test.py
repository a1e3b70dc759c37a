"""Nearest neighbours against a sort of all distances in float64."""

from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import load_dataset
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation import neighbours, stages
from pivq_jax.evaluation.neighbours import nearest_neighbours
from pivq_jax.evaluation.session import Samples


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def all_distances(queries, pool):
    wide = pool.astype(np.float64)
    return np.stack([np.sqrt(np.square(row - wide).sum(1)) for row in queries.astype(np.float64)])


@pytest.mark.parametrize("offset, spread", [(1000, 1), (0, 1e-6), (3, 1e6)])
def test_equals_a_sort_of_all_distances(offset, spread):
    pool, queries = normal(0, 300, 32), normal(1, 70, 32)
    pool, queries = (np.float32(spread) * x + np.float32(offset) for x in (pool, queries))
    found = nearest_neighbours(queries, pool, 4)
    exact = all_distances(queries, pool)
    np.testing.assert_array_equal(found.indices, np.argsort(exact, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(exact, axis=1)[:, :4], rtol=3e-7)


def test_what_float32_cannot_order_is_ordered():
    # All of the pool is nearly as far away as the nearest: float32 products see no difference.
    rng = np.random.default_rng(0)
    pool = 1000 * normal(0, 1, 64) + 1e-3 * normal(1, 200, 64)
    pool[::2] += 2000  # so that the mean lies far from both halves
    queries = pool[rng.permutation(200)[:20]] + 1e-4 * normal(2, 20, 64)
    found = nearest_neighbours(queries, pool, 3)
    exact = all_distances(queries, pool)
    np.testing.assert_allclose(found.distances, np.sort(exact, axis=1)[:, :3], rtol=3e-7)
    chosen = np.take_along_axis(exact, found.indices, axis=1)
    np.testing.assert_array_equal(chosen, np.sort(exact, axis=1)[:, :3])


def test_equal_distances_come_in_the_order_of_rows():
    pool = np.repeat(np.arange(5, dtype=np.float32), 3)[:, None]
    for k in (7, 9):  # also where not all equally far ones are among the nearest
        found = nearest_neighbours(np.array([[2.2]], np.float32), pool, k)
        np.testing.assert_array_equal(found.indices[0], [6, 7, 8, 9, 10, 11, 3, 4, 5][:k])


def test_bounds_hold_the_exact_distances():
    x, y = normal(0, 64, 2048) + 100, normal(1, 200, 2048)
    low, high = neighbours.bounds(*neighbours.centred(x, y))
    exact = all_distances(x, y) ** 2
    assert np.all(low <= exact) and np.all(exact <= high)
    # And they are of use: no wider than a thousandth of the squared lengths.
    assert np.all(high - low < 1e-3 * (np.square(x).sum(1)[:, None] + np.square(y).sum(1)))


@pytest.mark.parametrize(
    "queries, pool, k, words",
    [
        (normal(0, 3, 4), normal(1, 5, 4), 6, "k = 6 of a pool of 5"),
        (normal(0, 3, 4), normal(1, 5, 4), 0, "k = 0"),
        (normal(0, 0, 4), normal(1, 5, 4), 1, "queries are of 0 images"),
    ],
)
def test_bad_input_is_named(queries, pool, k, words):
    with pytest.raises(InputError, match=words):
        nearest_neighbours(queries, pool, k)


@pytest.mark.parametrize("samples", [4, 30])  # fewer and more training images than the pool has
def test_the_parents_of_the_samples_shown_are_searched(samples):
    train = load_dataset("random", image_size=16).train
    pool = first_images(train, 20)
    parents = np.array([[3, 19], [17, 2]])
    images = np.stack([pool[int(first)]["image"] for first, _ in parents])  # copies of a parent

    def as_features(values):
        return SimpleNamespace(whole=values.reshape(len(values), -1).astype(np.float32))

    def features(source):
        return as_features(np.stack([source[i]["image"] for i in range(len(source))]))

    saved = {}
    session = SimpleNamespace(
        dataset=SimpleNamespace(train=train),
        samples=Samples(images, None, parents),
        training_images=first_images(train, samples),
        training_features=features(first_images(train, samples)),
        sample_features=as_features(images),
        features_of=features,
        save=saved.__setitem__,
    )
    others = {int(i) for i in parents.ravel() if i >= samples}
    assert stages.neighbours(session) == {"nearest_training_images": samples + len(others)}
    # Each sample is followed by its nearest image, a copy of which it is.
    near = min(5, samples + len(others))
    for sample in range(2):
        shown, nearest = (
            saved["neighbours"][2:130, 130 * column + 2 : 130 * column + 130]
            for column in (sample * (near + 1), sample * (near + 1) + 1)
        )
        np.testing.assert_array_equal(shown, nearest)


def test_thousands_of_copies_are_not_all_compared(monkeypatch):
    counts, exact = [], neighbours.squared_distances

    def counted(x, y, rows, columns):
        counts.append(len(rows))
        return exact(x, y, rows, columns)

    monkeypatch.setattr(neighbours, "squared_distances", counted)
    pool = np.full((1000, 8), 0.3, np.float32)
    found = nearest_neighbours(pool, pool, 6)
    assert not found.distances.any() and sum(counts) == 2 * 6 * len(pool)
    assert all(len(set(row)) == 6 for row in found.indices.tolist())
