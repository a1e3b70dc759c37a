"""Samples are valid sets of their parents' codes, decoded, and the same for a seed."""

import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from pivq_jax import sampling
from pivq_jax.common.pictures import grid
from pivq_jax.evaluation import stages
from pivq_jax.evaluation.session import Samples
from pivq_jax.inference import decode_batched
from pivq_jax.sampling import CodeSpace
from tests.evaluation.atlas_test import Lamps

K, N, POOL = 24, 6, 20


class InterpolatingLamps(Lamps):
    space = CodeSpace(N, K)

    def interpolate(self, codes_a, codes_b, steps):
        return sampling.interpolate(self.space, self.codebook, codes_a, codes_b, steps)


MODEL = InterpolatingLamps()
CODES = np.stack([np.random.default_rng(i).permutation(K)[:N] for i in range(POOL)]).astype(
    np.int32
)
CODES.sort(axis=1)
draw = partial(sampling.recombine_at_random, MODEL.space, MODEL.codebook, CODES)


def lamps(codes):
    """uint8 [..., 4, 6]."""
    return np.where((codes[..., None] == np.arange(K)).any(-2), 255, 0).reshape(
        *codes.shape[:-1], 4, 6
    )


def test_samples_are_sets_of_their_parents_codes():
    codes, groups = draw(25, key=jax.random.key(3), batch_size=10)
    assert codes.shape == (25, N) and codes.dtype == np.int32
    assert groups.shape == (25, 2)
    for row, group in zip(codes, groups, strict=True):
        assert len(set(group.tolist())) == 2
        assert len(set(row.tolist())) == N
        assert set(row.tolist()) <= set(CODES[group].ravel().tolist())
    changed = (codes != CODES[groups[:, 0]]).any(1)
    assert changed.mean() > 0.9


def test_a_seed_is_one_set_of_samples_whatever_the_batch():
    one = draw(25, key=jax.random.key(3), batch_size=10)
    again = draw(25, key=jax.random.key(3), batch_size=7)
    other = draw(25, key=jax.random.key(4), batch_size=10)
    for first, second, third in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(first, second)
        assert np.any(first != third)


def test_samples_are_shown_between_their_first_two_parents():
    grey = [{"image": np.full((100, 100, 3), 10 * value, np.uint8)} for value in range(6)]
    images = np.stack([np.full((100, 100, 3), value, np.uint8) for value in (101, 102, 103)])
    groups = np.array([[5, 1, 2], [0, 4, 3], [2, 3, 0]])
    found = Samples(images, np.zeros((3, 2), np.int32), groups)
    picture = found.between_parents(grey, 2)
    shown = sorted({*np.unique(picture)} - {255})
    assert shown == [0, 10, 40, 50, 101, 102]  # of the third nothing
    order = [value for value in picture[picture.shape[0] // 2, :, 0] if value != 255]
    assert [value for value, _ in itertools.groupby(order)] == [50, 101, 10, 0, 102, 40]


def test_paths_lead_from_parent_to_parent():
    first, last = CODES[np.asarray(sampling.random_parents(jax.random.key(1), 3, POOL))].swapaxes(
        0, 1
    )
    paths = lamps(np.asarray(MODEL.interpolate(first, last, 4))).astype(np.uint8)
    tiles = [paths[step, pair] for pair in range(3) for step in range(4)]  # a row for each pair
    expected = grid(np.repeat(np.stack(tiles)[..., None], 3, axis=-1), 4, scale=32)
    for batch_size in (5, 9):
        session: Any = SimpleNamespace(
            model=MODEL,
            pool_codes=CODES,
            key=lambda draw: jax.random.key(1),
            decode=partial(decode_batched, MODEL, batch_size=batch_size),
        )
        np.testing.assert_array_equal(stages._interpolations(session, 3, 4), expected)


def test_average_of_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 2, 3, 3), np.uint8)
    source = [{"image": image} for image in images]
    parents = np.array([[0, 1], [4, 2], [3, 3]])
    averages = [*stages.average_pixels(source, parents, 2)]
    assert [len(batch) for batch in averages] == [2, 1]
    expected = images[parents].astype(float).mean(1)
    assert all(batch.dtype == np.uint8 for batch in averages)
    assert np.all(np.abs(np.concatenate(averages) - expected) <= 0.5)
    black_and_white = [{"image": np.full((1, 1, 3), value, np.uint8)} for value in (0, 255)]
    (grey,) = stages.average_pixels(black_and_white, np.array([[0, 1]]), 2)
    assert grey.tolist() == [[[[128] * 3]]]
