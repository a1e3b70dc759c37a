"""New images from the pixels of two."""

import numpy as np

from benchmarks import pixels


def test_pairs_are_of_different_images_and_all_occur():
    pairs = pixels.pairs_of(np.random.default_rng(0), 2_000, 5)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({*map(tuple, pairs.tolist())}) == 20


def test_lines_pass_through_the_middle_in_all_directions():
    distances = pixels.lines(np.random.default_rng(0), 200, 16)
    np.testing.assert_allclose(distances, -distances[:, ::-1, ::-1], atol=1e-4)
    steps = np.stack([np.diff(distances, axis=axis)[:, 0, 0] for axis in (1, 2)])
    np.testing.assert_allclose(np.square(steps).sum(0), 1, rtol=1e-4)  # in pixels
    assert (steps[0] > 0).any() and (steps[0] < 0).any() and np.abs(steps).min() < 0.05


def test_a_joined_image_has_each_parent_on_its_side():
    first, second = (np.full((1, 32, 32, 3), value, np.uint8) for value in (10, 210))
    distances = pixels.lines(np.random.default_rng(3), 1, 32)
    made = pixels.mix(first, second, pixels.weights(distances))
    far = np.abs(distances[0]) > 8 * pixels.SEAM / 2
    assert np.abs(made[0, far] - np.where(distances[0, far] > 0, 210.0, 10.0)[:, None]).max() <= 4
    hard = pixels.mix(first, second, (distances > 0).astype(np.float32))
    assert set(np.unique(hard)) == {10, 210}
    assert (pixels.mix(first, second, 0.5) == 110).all()


def test_the_match_is_the_image_that_differs_least_near_the_line():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    distances = pixels.lines(rng, 1, 32)
    near = np.abs(distances[0]) < 15
    images[23][near] = images[7][near]  # elsewhere as different as all others
    found = pixels.matched(rng, images, np.array([7]), distances)
    assert found.tolist() == [23]
