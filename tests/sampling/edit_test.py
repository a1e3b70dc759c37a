"""Edits: counts against a sum over images, changes against SciPy, and what they keep."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pivq_jax import sampling
from pivq_jax.sampling import CodeSpace, Labels
from pivq_jax.sampling.edit import FactorTable, check_labels, edit, factor_table, read_factors

# A made-up world: 4 codes per image, of 4 groups of 6 entries. Those of group 0 tell the colour,
# those of group 1 the shape, those of group 2 both, those of group 3 nothing.
N, GROUP = 4, 6
K = N * GROUP
FACTORS = {"colour": ("red", "green", "blue"), "shape": ("round", "square")}


def world(count: int, seed: int = 0) -> tuple[np.ndarray, Labels]:
    rng = np.random.default_rng(seed)
    colour, shape = rng.integers(0, 3, count), rng.integers(0, 2, count)
    free = rng.integers(0, GROUP, (count, N))
    within = np.stack(
        [
            colour + 3 * (free[:, 0] % 2),
            shape + 2 * (free[:, 1] % 3),
            2 * colour + shape,
            free[:, 3],
        ],
        axis=1,
    )
    return within + GROUP * np.arange(N), Labels(np.stack([colour, shape], 1), FACTORS)


@pytest.fixture(scope="module")
def learned():
    codes, labels = world(2_000)
    # Entries of a group are neighbours.
    codebook = (
        np.random.default_rng(1).normal(size=(K, 3)) + 4 * np.eye(N, 3)[np.arange(K) // GROUP]
    )
    table = factor_table(CodeSpace(N, K), codes, labels)
    return table, jnp.float32(codebook), sampling.log_lift(CodeSpace(N, K), codes)


def edited(learned, codes, kind="matching", **changes):
    table, codebook, lift = learned
    wanted = world(50)[1].wanted(**changes)
    return np.asarray(edit(CodeSpace(N, K, kind), codebook, codes, wanted, table, lift))


def values_of(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour and shape as each code has them: those of groups 0 and 1, then those of group 2."""
    within = codes - GROUP * np.arange(N)
    return within[:, 0] % 3, within[:, 1] % 2, within[:, 2] // 2, within[:, 2] % 2


def test_the_table_counts_images():
    codes, labels = world(50)
    table = factor_table(CodeSpace(N, K), codes, labels)
    for factor, count in enumerate((3, 2)):
        share = np.bincount(labels.values[:, factor], minlength=count) / 50
        np.testing.assert_allclose(np.exp(table.overall[factor, :count]), share, rtol=1e-5)
        for code in range(K):
            of_code = labels.values[(codes == code).any(1), factor]
            expected = (np.bincount(of_code, minlength=count) + share) / (len(of_code) + 1)
            np.testing.assert_allclose(
                np.exp(table.given_code[code, factor, :count]), expected, rtol=1e-5
            )
    assert np.isneginf(table.overall[1, 2]) and (np.asarray(table.given_code)[:, 1, 2] == 0).all()


def test_images_of_unknown_value_do_not_count():
    codes, labels = world(300)
    known = np.random.default_rng(5).random(300) < 0.5
    values = labels.values.copy()
    values[:, 0] = np.where(known, values[:, 0], 3)
    colours = (*FACTORS["colour"], "unknown")
    table = factor_table(CodeSpace(N, K), codes, Labels(values, {**FACTORS, "colour": colours}))
    whole = factor_table(CodeSpace(N, K), codes, labels)
    np.testing.assert_array_equal(table.given_code[:, 1, :2], whole.given_code[:, 1, :2])
    few = factor_table(CodeSpace(N, K), codes[known], Labels(labels.values[known], FACTORS))
    np.testing.assert_allclose(
        np.exp(table.given_code[:, 0, :3]), np.exp(few.given_code[:, 0, :3]), atol=2e-3
    )
    found = np.asarray(read_factors(world(200, seed=2)[0], table))
    assert (found.argmax(-1) == world(200, seed=2)[1].values).all()  # so never unknown


def test_factors_are_read(learned):
    codes, labels = world(200, seed=2)
    found = np.asarray(read_factors(codes, learned[0]))
    assert (found.argmax(-1) == labels.values).all()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    assert (found[:, 1, 2] == 0).all()  # there are two shapes


def test_only_codes_that_contradict_change(learned):
    codes, labels = world(200, seed=3)
    new = edited(learned, codes, colour="blue")
    colour, _, colour_too, shape_too = values_of(new)
    assert (colour == 2).all() and (colour_too == 2).all()
    assert (shape_too == values_of(codes)[3]).all()  # kept by the code that tells both
    assert (new[:, [1, 3]] == codes[:, [1, 3]]).all()
    both = values_of(edited(learned, codes, colour="red", shape="round"))
    assert not np.any(both)
    blue = codes[labels.values[:, 0] == 2]
    assert (edited(learned, blue, colour="blue") == blue).all()


def test_an_edit_is_the_cheapest_assignment(learned):
    table, codebook, lift = (
        FactorTable(*map(np.float64, learned[0])),
        *map(np.float64, learned[1:]),
    )
    rng = np.random.default_rng(5)
    codes = np.sort(np.stack([rng.choice(K, N, replace=False) for _ in range(20)]), 1)
    new = edited(learned, codes, shape="square")
    posterior = np.asarray(read_factors(codes, learned[0]), np.float64)
    mean = np.square(codebook[:, None] - codebook).sum(-1).mean()
    for row, old in enumerate(codes):
        cost = np.empty((N, K))
        for i, s in enumerate(old):
            for k in range(K):
                away = np.square(codebook[s] - codebook[k]).sum() / mean
                cost[i, k] = away + (lift.min() if s == k else lift[s, k]) / 3
                cost[i, k] -= 2 * table.given_code[k, 1, 1]
                cost[i, k] -= 0.5 * (posterior[row, 0] * table.given_code[k, 0]).sum()
            if table.given_code[s, 1, 1] >= table.overall[1, 1] + np.log(3 / 4):
                cost[i, np.arange(K) != s] = 1e9
        rows, columns = linear_sum_assignment(cost)
        assert len({*new[row]}) == N and (np.sort(new[row]) == new[row]).all()
        mine = cost[np.arange(N), columns[np.argsort(rows)]].sum()
        # The set is that of an optimal assignment: none of the same set is cheaper than `mine`.
        within = cost[:, new[row]]
        assert within[linear_sum_assignment(within)].sum() == pytest.approx(mine, abs=1e-4)


def test_multisets_are_edited_code_by_code(learned):
    codes, _ = world(50, seed=6)
    codes[:, 3] = codes[:, 0]  # twice the same code
    new = edited(learned, np.sort(codes, 1), kind="nearest", colour="green")
    for row in new:
        assert np.all(row[row < GROUP] % 3 == 1) and np.any(row < GROUP)
        both = row[(row >= 2 * GROUP) & (row < 3 * GROUP)] - 2 * GROUP
        assert np.all(both // 2 == 1)


@pytest.mark.parametrize("count, kept, far", [(60, 0.8, 8), (2_000, 0.99, 0)])
def test_a_code_that_is_coarse_or_fine_is_replaced_by_one_of_its_own_latent(count, kept, far):
    """Distances count beside those of a latent's own entries, however far those of others are."""
    space = CodeSpace(N, K, own_entries=True)
    signs = np.where(np.arange(K)[:, None] // GROUP >> np.arange(2) & 1, far, -far)
    values = np.random.default_rng(1).normal(size=(K, 3))
    codebook = jnp.float32(np.concatenate([values, signs], 1))
    codes, labels = world(count)
    table = factor_table(space, codes, labels)
    before, _ = world(500, seed=7)
    made = np.asarray(edit(space, codebook, before, labels.wanted(colour="green"), table, None))
    np.testing.assert_array_equal(made // GROUP, np.tile(np.arange(N), (500, 1)))
    first, _, third, _ = values_of(made)
    assert np.mean(first == 1) > 0.9 and np.mean(third == 1) > 0.9
    # What tells nothing mostly stays, though few images make it seem to tell something.
    assert np.mean(made[:, 3] == before[:, 3]) > kept


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "nothing to change"),
        ({"size": "big"}, "'size' is unknown: use colour, shape"),
        ({"shape": "blue"}, "shape = 'blue' is unknown: use one of round, square"),
        ({"shape": "square"}, "no training image shows shape=square"),
    ],
)
def test_values_that_cannot_be_wanted_are_refused(changes, message):
    labels = Labels(np.zeros((3, 2), int), FACTORS)
    assert labels.wanted(shape="round").tolist() == [-1, 0]
    with pytest.raises(ValueError, match=message):
        labels.wanted(**changes)


@pytest.mark.parametrize(
    "values, factors, message",
    [
        (np.zeros((3, 2), int), {}, "at least one factor"),
        (np.zeros((2, 2), int), FACTORS, "give \\[3, 2\\]"),
        (np.zeros((3, 2)), FACTORS, "integers"),
        (np.full((3, 2), 2), FACTORS, "out of range"),
        (np.full((3, 2), -1), FACTORS, "out of range"),
    ],
)
def test_wrong_labels_are_refused(values, factors, message):
    with pytest.raises(ValueError, match=message):
        check_labels(Labels(values, factors), 3)
