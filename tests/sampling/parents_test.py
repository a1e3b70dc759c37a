"""Parents that resemble each other, beside distances of SciPy."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from pivq_jax import sampling
from pivq_jax.common.errors import InputError

POOL, N, K, D = 12, 5, 30, 4
RNG = np.random.default_rng(0)
CODEBOOK = RNG.normal(size=(K, D)).astype(np.float32)
SPACE = sampling.CodeSpace(N, K)
CODES = np.stack([RNG.permutation(K)[:N] for _ in range(POOL)]).astype(np.int32)


def near(count: int = 50, **options: int) -> np.ndarray:
    key = jax.random.key(3)
    return np.asarray(sampling.near_parents(SPACE, key, count, CODES, CODEBOOK, **options))


def chamfer(a: np.ndarray, b: np.ndarray) -> float:
    apart = cdist(CODEBOOK[a].astype(np.float64), CODEBOOK[b], "sqeuclidean")
    return apart.min(0).mean() + apart.min(1).mean()


@pytest.mark.parametrize("parents, nearest_of", [(2, 1000), (3, POOL - 1)])
def test_the_nearest_of_all_images_are_parents(parents, nearest_of):
    groups = near(count=200, parents=parents, nearest_of=nearest_of)
    assert groups.shape == (200, parents) and groups.dtype == np.int32
    assert len(set(groups[:, 0])) == POOL
    for first, *others in groups:
        apart = [np.inf if i == first else chamfer(CODES[first], CODES[i]) for i in range(POOL)]
        assert others == np.argsort(apart)[: parents - 1].tolist()


def test_the_nearest_of_some_images_are_random_but_nearer():
    def mean_distance(groups: np.ndarray) -> float:
        return float(np.mean([chamfer(CODES[a], CODES[b]) for a, b in groups]))

    groups = near(count=300, nearest_of=4)
    assert np.all(groups[:, 0] != groups[:, 1])
    assert len(set(map(tuple, groups.tolist()))) > 2 * POOL  # not each one's nearest alone
    assert (
        mean_distance(near(300, nearest_of=11)) < mean_distance(groups) < mean_distance(near(300))
    )


def test_groups_do_not_depend_on_how_many_follow_nor_on_the_order_of_codes():
    groups = near(nearest_of=4)
    np.testing.assert_array_equal(near(count=7, nearest_of=4), groups[:7])
    shuffled = RNG.permuted(CODES, axis=1)
    again = sampling.near_parents(SPACE, jax.random.key(3), 50, shuffled, CODEBOOK, nearest_of=4)
    np.testing.assert_array_equal(again, groups)


@pytest.mark.parametrize("parents", [2, 3])
def test_the_others_are_matched_to_a_tenth_as_many_first_parents(parents):
    size, nearest_of = 300, 200
    codes = np.stack([RNG.permutation(K)[:N] for _ in range(size)]).astype(np.int32)
    key = jax.random.key(5)
    groups = sampling.near_parents(SPACE, key, 45, codes, CODEBOOK, parents, nearest_of)
    firsts = nearest_of // 10 // (parents - 1)
    for group in np.split(np.asarray(groups), range(firsts, 45, firsts)):
        assert len(np.unique(group)) == group.size  # no image is used twice
    group = np.asarray(groups)[:firsts]
    # What the others cost is the least that any choice among the same images could.
    drawn = jax.random.permutation(jax.random.fold_in(key, 0), size)[: firsts + nearest_of]
    rows, columns = np.asarray(drawn[:firsts]), np.asarray(drawn[firsts:])
    np.testing.assert_array_equal(group[:, 0], rows)
    cost = np.array([[chamfer(codes[i], codes[j]) for j in columns] for i in rows])
    cost = np.tile(cost, (parents - 1, 1))
    ours = [chamfer(codes[first], codes[other]) for first, *others in group for other in others]
    assert np.sum(ours) == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-6)


@pytest.mark.parametrize("parents, nearest_of", [(2, 1), (3, 2)])
def test_without_a_choice_all_parents_are_random(parents, nearest_of):
    expected = sampling.random_parents(jax.random.key(3), 50, POOL, parents)
    np.testing.assert_array_equal(near(parents=parents, nearest_of=nearest_of), expected)


def test_codes_of_another_space_and_a_pool_that_is_too_small_are_refused():
    with pytest.raises(ValueError, match="codes_a has shape"):
        sampling.near_parents(SPACE, jax.random.key(0), 5, CODES[:, 1:], CODEBOOK)
    with pytest.raises(InputError, match="13 parents of a pool of 12 images"):
        near(parents=13, nearest_of=100)
