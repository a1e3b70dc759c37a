"""Recombination and interpolation: valid sets, like for like, and exactly as much as asked."""

import collections
import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import strategies as st

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.config.sections import KINDS
from pivq_jax.matching import METHODS
from pivq_jax.sampling import CodeSpace

B, N, K, D = 4, 6, 16, 3  # one shape for most tests: each kind compiles once

CODEBOOK = np.random.default_rng(0).normal(size=(K, D)).astype(np.float32) + 5.0
CODES = np.tile(np.arange(N, dtype=np.int32), (B, 1))

SPACE = CodeSpace(N, K)
quick = functools.partial(hypothesis.settings, max_examples=40)


def space_of(codes, codebook, kind="matching", method="auto"):
    return CodeSpace(np.shape(codes)[-1], len(codebook), kind, method)


def recombine(a, b, codebook, key, fraction=0.5, kind="matching"):
    return sampling.recombine(space_of(a, codebook, kind), codebook, a, b, key, fraction)


def recombine_many(parents, codebook, key, fraction=None, kind="matching"):
    return sampling.recombine_many(
        space_of(parents, codebook, kind), codebook, parents, key, fraction
    )


def interpolate(a, b, codebook, steps, kind="matching"):
    return sampling.interpolate(space_of(a, codebook, kind), codebook, a, b, steps)


def pair_codes(a, b, codebook, kind="matching", method="auto"):
    return sampling.pair_codes(space_of(a, codebook, kind, method), codebook, a, b)


def exchange_code(a, b, codebook, code, kind):
    return sampling.exchange_code(space_of(a, codebook, kind), codebook, a, b, code)


def rows(kind):
    """A strategy for int32 [B, N]; few different codes, so that images share some."""
    if kind == "matching":
        row = st.permutations(range(K - 4)).map(lambda p: p[:N])
    else:
        row = st.lists(st.integers(0, 7), min_size=N, max_size=N)
    return st.lists(row, min_size=B, max_size=B).map(lambda r: np.array(r, np.int32))


def cases(kind):
    return st.tuples(rows(kind), rows(kind), st.integers(0, 2**31 - 1))


any_case = st.sampled_from(KINDS).flatmap(lambda k: st.tuples(st.just(k), cases(k)))
set_case = st.sampled_from(KINDS[:2]).flatmap(lambda k: st.tuples(st.just(k), cases(k)))


def bag(row):
    return collections.Counter(np.asarray(row).tolist())


def num_pairs(a, b, kind):
    if kind == "positional":
        return int(np.sum(a != b))
    return (bag(a) - bag(b)).total()


def num_exchanged(a, c, kind):
    return num_pairs(a, c, kind)


def canonical(codes, kind):
    return codes if kind == "positional" else np.sort(codes, axis=-1)


QUICK = ("auto", "sinkhorn")


@pytest.mark.parametrize(
    "method",
    [*QUICK, *(pytest.param(x, marks=pytest.mark.slow) for x in METHODS if x not in QUICK)],
)
def test_every_solver_pairs_what_differs_and_keeps_what_is_common(method):
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(K - 4)[:N] for _ in range(B)]) for _ in range(2))
    first, partners, cost = map(np.asarray, pair_codes(a, b, CODEBOOK, method=method))
    for row_a, row_b, row, partner in zip(a, b, first, partners, strict=True):
        np.testing.assert_array_equal(row, np.sort(row_a))
        np.testing.assert_array_equal(np.sort(partner), np.sort(row_b))
        assert set(row[row == partner]) == set(row_a) & set(row_b)
    least = np.asarray(pair_codes(a, b, CODEBOOK)[2]).sum(-1)
    if method in ("auto", "shortest_path", "auction"):
        np.testing.assert_allclose(cost.sum(-1), least, rtol=1e-5)
    assert np.all(cost.sum(-1) >= least * (1 - 1e-5))


@hypothesis.given(any_case, st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
@quick()
def test_recombine_exchanges_the_asked_number_and_keeps_what_is_common(case, fraction):
    kind, (a, b, seed) = case
    result = recombine(a, b, CODEBOOK, jax.random.key(seed), fraction, kind=kind)
    assert result.shape == (B, N) and result.dtype == jnp.int32
    for row_a, row_b, row in zip(a, b, np.asarray(result), strict=True):
        pairs = num_pairs(row_a, row_b, kind)
        wanted = int(np.round(np.float32(fraction) * np.float32(pairs)))
        assert num_exchanged(row_a, row, kind) == wanted
        if kind == "positional":
            assert np.all((row == row_a) | (row == row_b))
            continue
        assert np.all(np.diff(row) >= 0)
        assert bag(row_a) & bag(row_b) <= bag(row) <= bag(row_a) | bag(row_b)
        assert (bag(row) - bag(row_a)) <= bag(row_b)
        if kind == "matching":
            assert len(set(row.tolist())) == N


@hypothesis.given(set_case, st.randoms(use_true_random=False))
@quick()
def test_order_of_the_codes_means_nothing(case, random):
    kind, (a, b, seed) = case
    order = list(range(N))
    random.shuffle(order)
    key = jax.random.key(seed)
    np.testing.assert_array_equal(
        recombine(a, b, CODEBOOK, key, 0.5, kind=kind),
        recombine(a[:, order], b[:, order[::-1]], CODEBOOK, key, 0.5, kind=kind),
    )
    np.testing.assert_array_equal(
        interpolate(a, b, CODEBOOK, steps=5, kind=kind),
        interpolate(a[:, order], b[:, order[::-1]], CODEBOOK, steps=5, kind=kind),
    )


@hypothesis.given(any_case)
@quick()
def test_interpolation_goes_from_a_to_b_and_never_back(case):
    kind, (a, b, _) = case
    steps = 5
    result = np.asarray(interpolate(a, b, CODEBOOK, steps=steps, kind=kind))
    assert result.shape == (steps, B, N) and result.dtype == np.int32
    np.testing.assert_array_equal(result[0], canonical(a, kind))
    np.testing.assert_array_equal(result[-1], canonical(b, kind))
    for image in range(B):
        for step in range(steps):
            row = result[step, image]
            if step and kind == "positional":
                back = (result[step - 1, image] == b[image]) & (row != b[image])
                assert not back.any()
            elif step:
                arrived = bag(result[step - 1, image]) & bag(b[image])
                assert arrived <= bag(row)
            if kind == "matching":
                assert len(set(row.tolist())) == N


@hypothesis.given(any_case)
@quick()
def test_pairs_are_one_to_one_and_of_least_total_cost(case):
    kind, (a, b, _) = case
    first, partners, costs = map(np.asarray, pair_codes(a, b, CODEBOOK, kind))
    np.testing.assert_array_equal(first, canonical(a, kind))
    np.testing.assert_array_equal(np.sort(partners, axis=-1), np.sort(b, axis=-1))
    exact = np.square(CODEBOOK[first] - CODEBOOK[partners]).sum(-1)
    np.testing.assert_allclose(costs, exact, rtol=1e-4, atol=1e-4)
    for image in range(B):
        assert np.sum(first[image] != partners[image]) == num_pairs(a[image], b[image], kind)
        if kind == "positional":
            np.testing.assert_array_equal(partners[image], b[image])
            continue
        rest_a = np.array([*(bag(a[image]) - bag(b[image])).elements()], int)
        rest_b = np.array([*(bag(b[image]) - bag(a[image])).elements()], int)
        table = np.square(CODEBOOK[rest_a][:, None] - CODEBOOK[rest_b][None]).sum(-1)
        best = table[scipy.optimize.linear_sum_assignment(table)].sum()
        np.testing.assert_allclose(exact[image].sum(), best, rtol=1e-4, atol=1e-4)


@hypothesis.given(any_case, st.just(5))  # each number compiles anew
@quick()
def test_interpolation_goes_evenly_through_codebook_space_cheapest_pair_first(case, steps):
    kind, (a, b, _) = case
    path = np.asarray(interpolate(a, b, CODEBOOK, steps, kind=kind))
    first, partners, costs = map(np.asarray, pair_codes(a, b, CODEBOOK, kind))
    for image in range(B):
        pairs = np.flatnonzero(first[image] != partners[image])
        pairs = pairs[np.argsort(costs[image, pairs], kind="stable")]
        way = np.concatenate([[0.0], np.cumsum(costs[image, pairs], dtype=np.float64)])
        for step in range(steps):
            left = np.abs(way - way[-1] * step / (steps - 1))
            nearest = np.flatnonzero(left <= left.min() + 1e-5 * way[-1])  # two where they tie
            rows = []
            for count in nearest:
                row = first[image].copy()
                row[pairs[:count]] = partners[image, pairs[:count]]
                rows.append(canonical(row, kind).tolist())
            assert path[step, image].tolist() in rows


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_come_out_unchanged(kind):
    a = np.tile(np.arange(N, dtype=np.int32), (B, 1))
    key = jax.random.key(0)
    np.testing.assert_array_equal(recombine(a, a, CODEBOOK, key, 0.5, kind=kind), a)
    path = interpolate(a, a, CODEBOOK, steps=5, kind=kind)
    np.testing.assert_array_equal(path, np.tile(a, (5, 1, 1)))


def test_entries_at_one_place_are_still_different_codes():
    codebook = np.zeros((K, D), np.float32)
    a = np.arange(N, dtype=np.int32)[None]
    result = recombine(a, a + N, codebook, jax.random.key(0), 0.5)
    assert num_exchanged(a[0], result[0], "matching") == N // 2


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_have_equal_chances_and_are_chosen_for_each_image_anew(kind):
    images = 6000
    a = np.tile(np.arange(N, dtype=np.int32), (images, 1))
    result = recombine(a, a + N, CODEBOOK, jax.random.key(3), 0.5, kind=kind)
    held = (np.asarray(result)[:, :, None] == np.arange(N)).any(1)
    # 3 of 6 stay: a code stays with probability 1/2, and the standard error is 0.0065.
    np.testing.assert_allclose(held.mean(0), 0.5, atol=0.03)
    # Both sides of a hyperplane are alike, so what stays is as likely to be what goes.
    subsets = collections.Counter(map(tuple, held.tolist()))
    assert len(subsets) > 10
    for subset, count in subsets.items():
        other = subsets[tuple(not stays for stays in subset)]
        assert abs(count - other) < 5 * np.sqrt(count + other)


@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:]), KINDS[0]]
)
def test_codes_that_lie_together_are_exchanged_together(kind):
    # Two attributes of three codes each, as far apart as their own codes are near each other.
    attribute = np.arange(2 * N) % N // (N // 2)
    centres = np.random.default_rng(1).normal(size=(2, 8))
    codebook = centres[attribute] + 0.01 * np.random.default_rng(2).normal(size=(2 * N, 8))
    a = np.tile(np.arange(N, dtype=np.int32), (1000, 1))
    result = np.asarray(recombine(a, a + N, codebook, jax.random.key(0), 0.5, kind=kind))
    whole = [len({attribute[code] for code in row if code < N}) == 1 for row in result]
    assert np.mean(whole) > 0.98


@pytest.mark.parametrize("fraction", [1.5, -0.5, np.nan])
def test_a_share_that_is_none_is_refused(fraction):
    pool = np.arange(2 * N, dtype=np.int32).reshape(2, N)
    with pytest.raises(ValueError, match="fraction = "):
        sampling.recombine_at_random(
            SPACE, CODEBOOK, pool, 1, jax.random.key(0), 1, fraction=fraction
        )


def test_an_image_does_not_depend_on_its_batch():
    a = np.tile(np.arange(N, dtype=np.int32), (B, 1))
    key = jax.random.key(5)
    whole = recombine(a, a + N, CODEBOOK, key)
    np.testing.assert_array_equal(recombine(a[:2], a[:2] + N, CODEBOOK, key), whole[:2])
    other = recombine(a, a + N, CODEBOOK, jax.random.key(6))
    assert np.any(np.asarray(other) != np.asarray(whole))


@pytest.mark.parametrize("kind", ["positional", "matching"])
def test_vmap_over_images_with_traced_fractions(kind):
    a = np.tile(np.arange(N, dtype=np.int32), (B, 1))
    b = a + np.array([[1], [3], [6], [9]], np.int32)
    keys = jax.random.split(jax.random.key(1), B)
    fractions = jnp.array([0.0, 0.5, 0.5, 1.0])

    def one(a, b, key, fraction):
        return sampling.recombine(CodeSpace(N, K, kind), CODEBOOK, a, b, key, fraction)

    result = jax.vmap(one)(a, b, keys, fractions)
    for image in range(B):
        wanted = int(np.round(fractions[image] * num_pairs(a[image], b[image], kind)))
        assert num_exchanged(a[image], np.asarray(result[image]), kind) == wanted
        alone = one(a[image], b[image], keys[image], fractions[image])
        np.testing.assert_array_equal(result[image], alone)


def test_leading_dimensions_are_images():
    a = np.tile(np.arange(N, dtype=np.int32), (B, 1))
    b = a + np.array([[1], [3], [6], [9]], np.int32)
    flat = interpolate(a, b, CODEBOOK, steps=5, kind="matching")
    folded = interpolate(a.reshape(2, 2, N), b.reshape(2, 2, N), CODEBOOK, steps=5, kind="matching")
    assert folded.shape == (5, 2, 2, N)
    np.testing.assert_array_equal(folded.reshape(5, B, N), flat)


@pytest.mark.parametrize("parents, count", [(2, 6_000), (3, 12_000)])
def test_random_parents_differ_repeat_with_the_key_and_reach_all(parents, count):
    groups = np.asarray(sampling.random_parents(jax.random.key(0), count, 4, parents))
    assert groups.shape == (count, parents) and groups.dtype == np.int32
    seen = collections.Counter(map(tuple, groups.tolist()))
    assert len(seen) == math.perm(4, parents) and all(len({*group}) == parents for group in seen)
    assert min(seen.values()) > 400 and max(seen.values()) < 600
    again = sampling.random_parents(jax.random.key(0), count, 4, parents)
    np.testing.assert_array_equal(groups, again)


def test_all_of_a_pool_can_be_parents():
    everyone = np.asarray(sampling.random_parents(jax.random.key(2), 5, 7, 7))
    np.testing.assert_array_equal(np.sort(everyone), np.tile(np.arange(7), (5, 1)))


@hypothesis.given(any_case, st.sampled_from([None, 0.0, 0.3, 1.0]))
@quick()
def test_many_parents_give_valid_sets_of_their_codes(case, fraction):
    kind, (a, b, seed) = case
    third = np.roll(b, 1, axis=0)
    result = recombine_many(
        np.stack([a, b, third]), CODEBOOK, jax.random.key(seed), fraction, kind=kind
    )
    assert result.shape == (B, N) and result.dtype == jnp.int32
    if fraction == 0:
        np.testing.assert_array_equal(result, canonical(a, kind))
    for row, *parents in zip(np.asarray(result), a, b, third, strict=True):
        if kind == "positional":
            assert np.all(np.any([row == parent for parent in parents], axis=0))
            continue
        assert bag(row) <= bag(parents[0]) | bag(parents[1]) | bag(parents[2])
        assert np.all(np.diff(row) > 0) if kind == "matching" else np.all(np.diff(row) >= 0)


def test_a_key_gives_the_same_sets_where_jax_computes_with_64_bits():
    a, b, key = CODES, CODES + 7, jax.random.key(4)
    mixed = np.asarray(recombine(a, b, CODEBOOK, key))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(recombine(a, b, CODEBOOK, key), mixed)


def test_two_of_many_parents_are_recombined_as_ever():
    a, b = CODES, CODES + 5
    key = jax.random.key(3)
    np.testing.assert_array_equal(
        recombine_many(np.stack([a, b]), CODEBOOK, key, 0.4),
        recombine(a, b, CODEBOOK, jax.random.split(key, 1)[0], 0.4),
    )


@pytest.mark.parametrize(
    ("fraction", "shares"), [(None, (4, 4, 4)), (0.5, (6, 3, 3)), (1, (0, 6, 6))]
)
def test_parents_bring_in_equal_shares(fraction, shares):
    parents = np.arange(36).reshape(3, 1, 12).repeat(200, axis=1)  # no code in common
    codebook = np.random.default_rng(0).normal(size=(36, 4))
    result = np.asarray(recombine_many(parents, codebook, jax.random.key(0), fraction))
    owners = np.stack([(result // 12 == parent).sum(1) for parent in range(3)], 1)
    assert np.all(owners.sum(1) == 12)
    np.testing.assert_allclose(owners.mean(0), shares, atol=0.4)  # shares up to rounding


@hypothesis.given(set_case, st.integers(0, 7))
@quick()
def test_one_code_is_exchanged_like_for_like(case, code):
    kind, (a, b, _) = case
    result = np.asarray(exchange_code(a, b, CODEBOOK, code, kind=kind))
    for row_a, row_b, row in zip(a, b, result, strict=True):
        copies = (bag(row_a) - bag(row_b))[code]
        lost, gained = bag(row_a) - bag(row), bag(row) - bag(row_a)
        assert lost == collections.Counter({code: copies} if copies else {})
        assert gained <= bag(row_b) - bag(row_a) and gained.total() == copies
        if kind == "nearest" or not copies:
            continue
        rest_a, rest_b = (
            np.array([*(x - y).elements()])
            for x, y in ((bag(row_a), bag(row_b)), (bag(row_b), bag(row_a)))
        )
        cost = np.square(CODEBOOK[rest_a][:, None] - CODEBOOK[rest_b]).sum(-1)
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        assert [*gained] == [rest_b[columns[rows == list(rest_a).index(code)]][0]]


def test_one_code_is_exchanged_at_its_places():
    a, b = np.array([[3, 1, 3, 2]]), np.array([[5, 3, 3, 7]])
    result = exchange_code(a, b, CODEBOOK, 3, kind="positional")
    np.testing.assert_array_equal(result, [[5, 1, 3, 2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes_b": CODES[:, :-1]}, r"\(4, 6\) and codes_b \(4, 5\)"),
        ({"codes_a": CODES[:0], "codes_b": CODES[:0]}, r"shape \(0, 6\): give at least one image"),
        ({"codes_a": CODES[:, 1:], "codes_b": CODES[:, 1:]}, r"6 codes each, \[..., 6\]"),
        ({"codes_a": CODES.astype(np.float32)}, "float32"),
        ({"codes_a": np.int32(1), "codes_b": np.int32(1)}, r"\[..., 6\]"),
        ({"codebook": CODEBOOK[0]}, r"\[16, D\]"),
        ({"codebook": CODEBOOK[:5]}, r"shape \(5, 3\): give \[16, D\]"),
        ({"fraction": 1.5}, r"1.5 is outside \[0, 1\]"),
        ({"fraction": -0.1}, r"outside \[0, 1\]"),
        ({"fraction": float("nan")}, r"nan is outside \[0, 1\]"),
        ({"fraction": np.zeros(B)}, "give a scalar"),
    ],
)
def test_recombine_refuses(change, message):
    arguments = {"codes_a": CODES, "codes_b": CODES, "codebook": CODEBOOK, **change}
    with pytest.raises(ValueError, match=message):
        sampling.recombine(SPACE, key=jax.random.key(0), **arguments)


def test_interpolate_and_random_parents_refuse():
    with pytest.raises(ValueError, match="steps = 1"):
        interpolate(CODES, CODES, CODEBOOK, 1)
    with pytest.raises(TypeError, match="integer"):
        interpolate(CODES, CODES, CODEBOOK, 2.9)
    with pytest.raises(InputError, match="4 parents of a pool of 3 images: encode more"):
        sampling.random_parents(jax.random.key(0), 3, 3, 4)
    with pytest.raises(InputError, match="parents = 1: use at least 2"):
        sampling.random_parents(jax.random.key(0), 3, 3, 1)
    for parents in (CODES[None], np.arange(3)):
        with pytest.raises(ValueError, match="P >= 2"):
            sampling.recombine_many(SPACE, CODEBOOK, parents, jax.random.key(0))
    with pytest.raises(InputError, match="count = 0: use at least 1"):
        sampling.random_parents(jax.random.key(0), 0, 3)
