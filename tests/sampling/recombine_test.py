"""Recombination and interpolation: valid sets, like for like, and exactly as much as asked."""

import collections
import functools
import math
import operator

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import strategies as st

from pivq_jax.common.errors import InputError
from pivq_jax.config.sections import KINDS
from pivq_jax.sampling import (
    CodeSpace,
    exchange_code,
    interpolate,
    pair_codes,
    random_parents,
    recombine,
    recombine_at_random,
    recombine_many,
)

B, N, K, D = 4, 6, 16, 3  # one shape for most tests: each kind compiles once

CODEBOOK = np.random.default_rng(0).normal(size=(K, D)).astype(np.float32) + 5.0
CODES = np.tile(np.arange(N, dtype=np.int32), (B, 1))  # the same image B times
SPACES = {kind: CodeSpace(N, K, kind) for kind in KINDS}
SPACE = SPACES["matching"]
KEY = jax.random.key(0)
quick = functools.partial(hypothesis.settings, max_examples=40)


def rows(kind):
    """A strategy for int32 [B, N]; few different codes, so that images share some."""
    if kind == "matching":
        row = st.permutations(range(K - 4)).map(lambda p: p[:N])
    else:
        row = st.lists(st.integers(0, 7), min_size=N, max_size=N)
    return st.lists(row, min_size=B, max_size=B).map(lambda r: np.array(r, np.int32))


def cases(kind):
    """Of a space, the codes of A and B, and a seed."""
    return st.tuples(st.just(SPACES[kind]), rows(kind), rows(kind), st.integers(0, 2**31 - 1))


any_case = st.sampled_from(KINDS).flatmap(cases)
set_case = st.sampled_from(KINDS[:2]).flatmap(cases)


def bag(row):
    return collections.Counter(np.asarray(row).tolist())


def num_pairs(a, b, space=SPACE):
    return int(np.sum(a != b)) if space.ordered else (bag(a) - bag(b)).total()


def test_an_approximate_solver_pairs_what_differs_and_keeps_what_is_common():
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(K - 4)[:N] for _ in range(B)]) for _ in range(2))
    space = CodeSpace(N, K, method="sinkhorn")
    first, partners, cost = map(np.asarray, pair_codes(space, CODEBOOK, a, b))
    np.testing.assert_array_equal(first, np.sort(a))
    np.testing.assert_array_equal(np.sort(partners), np.sort(b))
    for row_a, row_b, row, partner in zip(a, b, first, partners, strict=True):
        assert set(row[row == partner]) == set(row_a) & set(row_b)
    least = np.asarray(pair_codes(SPACE, CODEBOOK, a, b)[2]).sum(-1)
    assert np.all(cost.sum(-1) >= least * (1 - 1e-5))


@hypothesis.given(any_case, st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
@quick()
def test_recombine_exchanges_the_asked_number_and_keeps_what_is_common(case, fraction):
    space, a, b, seed = case
    result = recombine(space, CODEBOOK, a, b, jax.random.key(seed), fraction)
    assert result.shape == (B, N) and result.dtype == jnp.int32
    for row_a, row_b, row in zip(a, b, np.asarray(result), strict=True):
        pairs = num_pairs(row_a, row_b, space)
        wanted = int(np.round(np.float32(fraction) * np.float32(pairs)))
        assert num_pairs(row_a, row, space) == wanted
        if space.ordered:
            assert np.all((row == row_a) | (row == row_b))
            continue
        assert np.all(np.diff(row) >= 0)
        assert bag(row_a) & bag(row_b) <= bag(row) <= bag(row_a) | bag(row_b)
        assert (bag(row) - bag(row_a)) <= bag(row_b)
        if space.distinct:
            assert len(set(row.tolist())) == N


@hypothesis.given(set_case, st.randoms(use_true_random=False))
@quick()
def test_order_of_the_codes_means_nothing(case, random):
    space, a, b, seed = case
    order = list(range(N))
    random.shuffle(order)
    key = jax.random.key(seed)
    np.testing.assert_array_equal(
        recombine(space, CODEBOOK, a, b, key),
        recombine(space, CODEBOOK, a[:, order], b[:, order[::-1]], key),
    )
    np.testing.assert_array_equal(
        interpolate(space, CODEBOOK, a, b, 5),
        interpolate(space, CODEBOOK, a[:, order], b[:, order[::-1]], 5),
    )


@hypothesis.given(any_case)
@quick()
def test_pairs_are_one_to_one_and_of_least_total_cost(case):
    space, a, b, _ = case
    first, partners, costs = map(np.asarray, pair_codes(space, CODEBOOK, a, b))
    np.testing.assert_array_equal(first, space.canonical(a))
    np.testing.assert_array_equal(np.sort(partners, axis=-1), np.sort(b, axis=-1))
    exact = np.square(CODEBOOK[first] - CODEBOOK[partners]).sum(-1)
    np.testing.assert_allclose(costs, exact, rtol=1e-4, atol=1e-4)
    for image in range(B):
        assert np.sum(first[image] != partners[image]) == num_pairs(a[image], b[image], space)
        if space.ordered:
            np.testing.assert_array_equal(partners[image], b[image])
            continue
        rest_a = np.array([*(bag(a[image]) - bag(b[image])).elements()], int)
        rest_b = np.array([*(bag(b[image]) - bag(a[image])).elements()], int)
        table = np.square(CODEBOOK[rest_a][:, None] - CODEBOOK[rest_b][None]).sum(-1)
        best = table[scipy.optimize.linear_sum_assignment(table)].sum()
        np.testing.assert_allclose(exact[image].sum(), best, rtol=1e-4, atol=1e-4)


@hypothesis.given(any_case)
@quick()
def test_interpolation_goes_evenly_from_a_to_b_cheapest_pair_first(case):
    space, a, b, _ = case
    steps = 5
    path = np.asarray(interpolate(space, CODEBOOK, a, b, steps))
    assert path.shape == (steps, B, N) and path.dtype == np.int32
    np.testing.assert_array_equal(path[[0, -1]], space.canonical(np.stack([a, b])))
    first, partners, costs = map(np.asarray, pair_codes(space, CODEBOOK, a, b))
    for image in range(B):
        pairs = np.flatnonzero(first[image] != partners[image])
        pairs = pairs[np.argsort(costs[image, pairs], kind="stable")]
        way = np.concatenate([[0.0], np.cumsum(costs[image, pairs], dtype=np.float64)])
        exchanged = 0
        for step in range(steps):
            left = np.abs(way - way[-1] * step / (steps - 1))
            nearest = np.flatnonzero(left <= left.min() + 1e-5 * way[-1])  # two where they tie
            rows = {}
            for count in nearest:
                row = first[image].copy()
                row[pairs[:count]] = partners[image, pairs[:count]]
                rows[tuple(space.canonical(row).tolist())] = count
            before, exchanged = exchanged, rows[tuple(path[step, image].tolist())]
            assert before <= exchanged  # never back


@pytest.mark.parametrize("space", SPACES.values(), ids=KINDS)
def test_equal_images_come_out_unchanged(space):
    np.testing.assert_array_equal(recombine(space, CODEBOOK, CODES, CODES, KEY), CODES)
    path = interpolate(space, CODEBOOK, CODES, CODES, 5)
    np.testing.assert_array_equal(path, np.tile(CODES, (5, 1, 1)))


@pytest.mark.parametrize("space", SPACES.values(), ids=KINDS)
def test_pairs_have_equal_chances_and_are_chosen_for_each_image_anew(space):
    images = 6000
    a = np.tile(np.arange(N, dtype=np.int32), (images, 1))
    result = recombine(space, CODEBOOK, a, a + N, jax.random.key(3))
    held = (np.asarray(result)[:, :, None] == np.arange(N)).any(1)
    # 3 of 6 stay: a code stays with probability 1/2, and the standard error is 0.0065.
    np.testing.assert_allclose(held.mean(0), 0.5, atol=0.03)
    # Both sides of a hyperplane are alike, so what stays is as likely to be what goes.
    subsets = collections.Counter(map(tuple, held.tolist()))
    assert len(subsets) > 10
    for subset, count in subsets.items():
        other = subsets[tuple(not stays for stays in subset)]
        assert abs(count - other) < 5 * np.sqrt(count + other)


def test_codes_that_lie_together_are_exchanged_together():
    # Two attributes of three codes each, as far apart as their own codes are near each other.
    attribute = np.arange(2 * N) % N // (N // 2)
    centres = np.random.default_rng(1).normal(size=(2, 8))
    codebook = centres[attribute] + 0.01 * np.random.default_rng(2).normal(size=(2 * N, 8))
    a = np.tile(np.arange(N, dtype=np.int32), (1000, 1))
    result = np.asarray(recombine(CodeSpace(N, 2 * N), codebook, a, a + N, KEY))
    whole = [len({attribute[code] for code in row if code < N}) == 1 for row in result]
    assert np.mean(whole) > 0.98


def test_an_image_depends_on_its_key_but_neither_on_its_batch_nor_on_64_bits():
    whole = recombine(SPACE, CODEBOOK, CODES, CODES + N, KEY)
    some = recombine(SPACE, CODEBOOK, CODES[:2], CODES[:2] + N, KEY)
    np.testing.assert_array_equal(some, whole[:2])
    with jax.enable_x64(True):
        again = recombine(SPACE, CODEBOOK, CODES, CODES + N, KEY)
    np.testing.assert_array_equal(again, whole)
    other = recombine(SPACE, CODEBOOK, CODES, CODES + N, jax.random.key(6))
    assert np.any(np.asarray(other) != np.asarray(whole))


def test_vmap_over_images_with_traced_fractions():
    a, b = CODES, CODES + np.array([[1], [3], [6], [9]], np.int32)
    keys = jax.random.split(jax.random.key(1), B)
    fractions = jnp.array([0.0, 0.5, 0.5, 1.0])
    one = functools.partial(recombine, SPACE, CODEBOOK)
    result = jax.vmap(one)(a, b, keys, fractions)
    for image in range(B):
        wanted = int(np.round(fractions[image] * num_pairs(a[image], b[image])))
        assert num_pairs(a[image], np.asarray(result[image])) == wanted
        alone = one(a[image], b[image], keys[image], fractions[image])
        np.testing.assert_array_equal(result[image], alone)


def test_leading_dimensions_are_images():
    a, b = CODES, CODES + np.array([[1], [3], [6], [9]], np.int32)
    flat = interpolate(SPACE, CODEBOOK, a, b, 5)
    folded = interpolate(SPACE, CODEBOOK, a.reshape(2, 2, N), b.reshape(2, 2, N), 5)
    assert folded.shape == (5, 2, 2, N)
    np.testing.assert_array_equal(folded.reshape(5, B, N), flat)


@pytest.mark.parametrize("parents, count", [(2, 6_000), (3, 12_000)])
def test_random_parents_differ_repeat_with_the_key_and_reach_all(parents, count):
    groups = np.asarray(random_parents(KEY, count, 4, parents))
    assert groups.shape == (count, parents) and groups.dtype == np.int32
    seen = collections.Counter(map(tuple, groups.tolist()))
    assert len(seen) == math.perm(4, parents) and all(len({*group}) == parents for group in seen)
    assert min(seen.values()) > 400 and max(seen.values()) < 600
    np.testing.assert_array_equal(random_parents(KEY, count, 4, parents), groups)
    everyone = np.asarray(random_parents(KEY, 5, 7, 7))
    np.testing.assert_array_equal(np.sort(everyone), np.tile(np.arange(7), (5, 1)))


@hypothesis.given(any_case, st.sampled_from([None, 0.0, 0.3, 1.0]))
@quick()
def test_many_parents_give_valid_sets_of_their_codes(case, fraction):
    space, a, b, seed = case
    third = np.roll(b, 1, axis=0)
    parents = np.stack([a, b, third])
    result = recombine_many(space, CODEBOOK, parents, jax.random.key(seed), fraction)
    assert result.shape == (B, N) and result.dtype == jnp.int32
    if fraction == 0:
        np.testing.assert_array_equal(result, space.canonical(a))
    for row, *group in zip(np.asarray(result), a, b, third, strict=True):
        if space.ordered:
            assert np.all(np.any([row == parent for parent in group], axis=0))
            continue
        assert bag(row) <= functools.reduce(operator.or_, map(bag, group))
        assert np.all(np.diff(row) > 0) if space.distinct else np.all(np.diff(row) >= 0)


@pytest.mark.parametrize(
    ("fraction", "shares"), [(None, (4, 4, 4)), (0.5, (6, 3, 3)), (1, (0, 6, 6))]
)
def test_parents_bring_in_equal_shares(fraction, shares):
    parents = np.arange(36).reshape(3, 1, 12).repeat(200, axis=1)  # no code in common
    codebook = np.random.default_rng(0).normal(size=(36, 4))
    result = np.asarray(recombine_many(CodeSpace(12, 36), codebook, parents, KEY, fraction))
    owners = np.stack([(result // 12 == parent).sum(1) for parent in range(3)], 1)
    assert np.all(owners.sum(1) == 12)
    np.testing.assert_allclose(owners.mean(0), shares, atol=0.4)  # shares up to rounding


@hypothesis.given(set_case, st.integers(0, 7))
@quick()
def test_one_code_is_exchanged_like_for_like(case, code):
    space, a, b, _ = case
    result = np.asarray(exchange_code(space, CODEBOOK, a, b, code))
    for row_a, row_b, row in zip(a, b, result, strict=True):
        copies = (bag(row_a) - bag(row_b))[code]
        lost, gained = bag(row_a) - bag(row), bag(row) - bag(row_a)
        assert lost == collections.Counter({code: copies} if copies else {})
        assert gained <= bag(row_b) - bag(row_a) and gained.total() == copies
        if not space.distinct or not copies:
            continue
        rest_a, rest_b = (
            np.array([*(x - y).elements()])
            for x, y in ((bag(row_a), bag(row_b)), (bag(row_b), bag(row_a)))
        )
        cost = np.square(CODEBOOK[rest_a][:, None] - CODEBOOK[rest_b]).sum(-1)
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        assert [*gained] == [rest_b[columns[rows == list(rest_a).index(code)]][0]]
    a, b = np.array([[3, 1, 3, 2]]), np.array([[5, 3, 3, 7]])
    placed = exchange_code(CodeSpace(4, K, "positional"), CODEBOOK, a, b, 3)
    np.testing.assert_array_equal(placed, [[5, 1, 3, 2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes_b": CODES[:, :-1]}, "codes_b"),
        ({"codes_a": CODES[:0], "codes_b": CODES[:0]}, "at least one image"),
        ({"codes_a": CODES[:, 1:], "codes_b": CODES[:, 1:]}, "6 codes each"),
        ({"codes_a": CODES.astype(np.float32)}, "float32"),
        ({"codebook": CODEBOOK[:5]}, r"give \[16, D\]"),
        ({"fraction": 1.5}, r"1.5 is outside \[0, 1\]"),
        ({"fraction": float("nan")}, "nan is outside"),
        ({"fraction": np.zeros(B)}, "give a scalar"),
    ],
)
def test_recombine_refuses(change, message):
    arguments = {"codes_a": CODES, "codes_b": CODES, "codebook": CODEBOOK, **change}
    with pytest.raises(ValueError, match=message):
        recombine(SPACE, key=KEY, **arguments)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (interpolate, (SPACE, CODEBOOK, CODES, CODES, 1), ValueError, "steps = 1"),
        (interpolate, (SPACE, CODEBOOK, CODES, CODES, 2.9), TypeError, "integer"),
        (recombine_at_random, (SPACE, CODEBOOK, CODES, 1, KEY, 1, 2, 1.5), ValueError, "fraction"),
        (recombine_many, (SPACE, CODEBOOK, CODES[None], KEY), ValueError, "P >= 2"),
        (random_parents, (KEY, 3, 3, 4), InputError, "4 parents of a pool of 3 images"),
        (random_parents, (KEY, 3, 3, 1), InputError, "parents = 1: use at least 2"),
        (random_parents, (KEY, 0, 3, 2), InputError, "count = 0: use at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(*arguments)
