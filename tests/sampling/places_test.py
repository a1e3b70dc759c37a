"""Codes of one latent, with several stages, are exchanged together."""

import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax import sampling
from pivq_jax.model.quantizer import place_vectors
from pivq_jax.sampling import CodeSpace, lines
from pivq_jax.sampling.completion import complete_patches

PLACES, STAGES, EACH = 16, 3, 4  # a grid of 4 x 4, with 4 entries of each place at every stage
N, K = PLACES * STAGES, PLACES * STAGES * EACH
SPACE = CodeSpace(N, K, places=PLACES)
PLACE = np.tile(np.repeat(np.arange(PLACES), EACH), STAGES)
RNG = np.random.default_rng(0)
CODEBOOK = np.concatenate(
    [place_vectors(PLACES, 8)[PLACE] + 0.01 * RNG.normal(size=(K, 8)), RNG.normal(size=(K, 8))], 1
).astype(np.float32)


def images(count, seed):
    """Codes int32 [count, N], one entry of each place at each stage."""
    rng = np.random.default_rng(seed)
    first = np.arange(0, K, EACH)
    return np.sort(first + rng.integers(0, EACH, (count, N)), 1).astype(np.int32)


def others(codes):
    """Other entries of the same places and stages."""
    return codes // EACH * EACH + (codes + 1) % EACH


def test_places_are_those_of_the_nearest_vectors():
    np.testing.assert_array_equal(SPACE.places_of(jnp.arange(K), jnp.asarray(CODEBOOK)), PLACE)


def halves(side):
    """The places on one side of each line through the middle, bool [side * side]."""
    rows, columns = np.divmod(np.arange(side * side), side)
    for line in range(16):
        angle = np.pi * line / 16
        score = np.round(np.cos(angle) * rows + np.sin(angle) * columns, 4)
        taken = np.zeros(side * side, bool)
        taken[np.argsort(score, kind="stable")[: side * side // 2]] = True
        yield taken


def along_lines(a, b, side):
    """The mean squared difference of latents [P, D] at the line where it is least."""
    apart = np.square(a - b).mean(-1)
    grid = np.arange(side * side).reshape(side, side)
    below = np.stack([grid[:-1].ravel(), grid[1:].ravel()], 1)
    beside = np.stack([grid[:, :-1].ravel(), grid[:, 1:].ravel()], 1)
    borders = np.concatenate([below, beside])
    return min(
        apart[borders[taken[borders[:, 0]] != taken[borders[:, 1]]]].mean()
        for taken in halves(side)
    )


def test_the_nearest_parents_are_alike_along_a_line():
    codes = images(12, 3)
    groups = sampling.near_parents(SPACE, jax.random.key(0), 60, codes, CODEBOOK, nearest_of=11)
    latents = np.zeros((12, PLACES, 8))
    for image, row in enumerate(codes):
        np.add.at(latents[image], PLACE[row], CODEBOOK[row, 8:])
    apart = np.array([[along_lines(a, b, 4) for b in latents] for a in latents])
    nearest = (apart + 1e9 * np.eye(12)).argmin(1)
    np.testing.assert_array_equal(groups[:, 1], nearest[groups[:, 0]])
    assert len(np.unique(groups[:, 0])) > 6


@pytest.mark.parametrize("side", [2, 3, 5, 8, 16])
def test_only_latents_that_border_on_a_line_count(side):
    rng = np.random.default_rng(side)
    a, b = rng.normal(size=(3, side**2, 2)), rng.normal(size=(4, side**2, 2))
    found = lines.distances_along_lines(*(jnp.asarray(x, jnp.float32) for x in (a, b)))
    expected = [[along_lines(x, y, side) for y in b] for x in a]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_places_on_one_side_of_a_line_are_exchanged_whole(fraction):
    a, b = images(20, 1), images(20, 2)
    mixed = np.asarray(sampling.recombine(SPACE, CODEBOOK, a, b, jax.random.key(0), fraction))
    for row, old, new in zip(mixed, a, b, strict=True):
        assert len(np.unique(row)) == N
        for place in range(PLACES):
            codes, of_a, of_b = (set(x[PLACE[x] == place]) for x in (row, old, new))
            assert codes in (of_a, of_b)
        differing = len(set(old) - set(new))
        count = len(set(row) - set(old))
        assert count >= round(fraction * differing)
        assert count <= round(fraction * differing) + STAGES  # the rest of the last place


def test_interpolations_exchange_one_place_after_another():
    a, b = images(4, 3), images(4, 4)
    path = np.asarray(sampling.interpolate(SPACE, CODEBOOK, a, b, 9))
    np.testing.assert_array_equal(path[0], a)
    np.testing.assert_array_equal(path[-1], b)
    for step in path:
        for row, old, new in zip(step, a, b, strict=True):
            for place in range(PLACES):
                codes, of_a, of_b = (set(x[PLACE[x] == place]) for x in (row, old, new))
                assert codes in (of_a, of_b)
    assert len({step.tobytes() for step in path}) > 5


@given(st.integers(0, 2**32 - 1), st.sampled_from(["matching", "nearest"]))
@settings(max_examples=30)
def test_codes_are_paired_in_their_place_and_each_choice_of_pairs_is_an_image(seed, kind):
    # Any codes, so that places have different numbers of them in A and in B.
    rng, space = np.random.default_rng(seed), dataclasses.replace(SPACE, kind=kind)
    copies = kind == "nearest"
    a = np.sort(rng.choice(K, N, replace=copies))
    kept = a[rng.random(N) < 0.3]
    others = np.arange(K) if copies else np.setdiff1d(np.arange(K), a)
    b = np.sort(np.append(kept, rng.choice(others, N - len(kept), replace=copies)))
    a, b = a[None], b[None]
    first, partners, cost = (np.asarray(x)[0] for x in sampling.pair_codes(space, CODEBOOK, a, b))
    assert first.tolist() == a[0].tolist()
    assert sorted(partners) == b[0].tolist()
    shared = sum((Counter(a[0].tolist()) & Counter(b[0].tolist())).values())
    assert (first == partners).sum() == shared
    counts = [np.bincount(PLACE[codes], minlength=PLACES) for codes in (a[0], b[0])]
    assert (PLACE[first] == PLACE[partners]).sum() == np.minimum(*counts).sum()
    np.testing.assert_allclose(cost, ((CODEBOOK[first] - CODEBOOK[partners]) ** 2).sum(1), 1e-5)
    if kind == "matching":
        assert len(set(np.where(rng.random(N) < 0.5, first, partners))) == N


def test_without_a_code_in_common_those_of_a_stage_are_partners():
    a, b = images(5, 1), images(5, 2)
    b = np.where(a == b, others(b), b)
    first, partners, _ = map(np.asarray, sampling.pair_codes(SPACE, CODEBOOK, a, np.sort(b)))
    np.testing.assert_array_equal(first // EACH, partners // EACH)


def seam(exchanged, latents_a, latents_b):
    """The squared differences on both sides of where exchanged places border on others."""
    apart = ((latents_a - latents_b) ** 2).sum(-1)
    total = 0.0
    for p, q in np.ndindex(PLACES, PLACES):
        (row, column), (other_row, other_column) = divmod(p, 4), divmod(q, 4)
        if abs(row - other_row) + abs(column - other_column) == 1 and exchanged[p] > exchanged[q]:
            total += apart[p] + apart[q]
    return total


def sides(key, first, partners):
    """The places up to the line of each image that has half of its pairs, bool [B, PLACES]."""
    found = []
    for image, (own, other) in enumerate(zip(first, partners, strict=True)):
        direction = np.asarray(jax.random.normal(jax.random.fold_in(key, image), (2,)))
        order = np.stack(np.divmod(np.arange(PLACES), 4), -1) @ direction
        at = np.sort(order[PLACE[own[own != other]]])
        found.append(order <= at[round(len(at) / 2) - 1] + 1e-6)
    return np.array(found)


def test_of_several_lines_the_one_is_taken_along_which_images_are_most_alike():
    a, b = images(20, 5), images(20, 6)
    b[:, 6::PLACES] = a[:, 6::PLACES]  # a patch that both have: no line runs around it
    first, partners, _ = map(np.asarray, sampling.pair_codes(SPACE, CODEBOOK, a, b))
    key = jax.random.key(1)
    choose = functools.partial(sampling.choose_pairs, SPACE, first, partners, jnp.asarray(CODEBOOK))
    keys = [key, *jax.random.split(jax.random.fold_in(key, 2**32 - 1), 8)]
    taken = np.array([sides(each, first, partners) for each in keys])
    choices = np.array([row[np.arange(20)[:, None], PLACE[first]] for row in taken])
    choices &= first != partners
    for each, expected in zip(keys, choices, strict=True):
        np.testing.assert_array_equal(choose(each, jnp.float32(0.5), candidates=1), expected)
    latents = [np.asarray(SPACE.latents_of(jnp.asarray(x), jnp.asarray(CODEBOOK))) for x in (a, b)]
    costs = np.array(
        [[seam(row[i], latents[0][i], latents[1][i]) for i in range(20)] for row in taken]
    )
    best = costs.argmin(0)
    assert np.sum(best > 0) > 10
    found = np.asarray(choose(key, jnp.float32(0.5), candidates=9))
    np.testing.assert_array_equal(found, choices[best, np.arange(20)])
    mixed = sampling.recombine(SPACE, CODEBOOK, a, b, key, candidates=9)
    np.testing.assert_array_equal(mixed, np.sort(np.where(found, partners, first)))


def test_hidden_patches_are_those_of_the_parent_whose_visible_ones_are_most_alike():
    parents = images(6, seed=1)
    visible = np.ones((2, 32, 32, 1), np.float32)
    visible[0, :, :16] = 0  # the left half
    visible[1, 8:16, 8:11] = 0  # a third of a patch, which counts as visible
    codes = parents[[2, 4]].copy()
    hidden = PLACE[codes[0]] % 4 < 2
    changed = hidden.copy()
    changed[np.flatnonzero(~hidden)[0]] = True  # and one code where the image is visible
    codes[0] = np.where(changed, others(codes[0]), codes[0])
    given = jnp.asarray(codes), jnp.asarray(visible)
    found = complete_patches(SPACE, jnp.asarray(CODEBOOK), parents, None, *given)
    np.testing.assert_array_equal(found[0], np.sort(np.where(hidden, parents[2], codes[0])))
    np.testing.assert_array_equal(found[1], codes[1])
