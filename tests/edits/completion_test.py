"""Completion by a trained model: what is hidden, what is refused, what fits."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pivq_jax.data import load_dataset
from pivq_jax.edits.completion import (
    REGIONS,
    count_changed,
    visible_pixels,
    write_completions,
)
from pivq_jax.evaluation.session import Session
from pivq_jax.sampling.completion import first_guess


@pytest.mark.parametrize("region", REGIONS)
def test_regions(region):
    visible = visible_pixels(region, 16, 5, seed=3)
    assert visible.shape == (5, 16, 16) and visible.dtype == bool
    assert np.mean(visible) == (0.75 if region == "centre" else 0.5)
    same = (visible == visible[0]).all()
    assert same == (region != "patches")
    mirrored = {"left": "right", "upper": "lower"}.get(region)
    if mirrored:
        assert (visible == ~visible_pixels(mirrored, 16, 5)).all()


def test_patches_are_whole_and_drawn_for_each_image():
    visible = visible_pixels("patches", 24, 40, seed=1)
    cells = visible.reshape(40, 8, 3, 8, 3)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert (visible == visible_pixels("patches", 24, 40, seed=1)).all()
    assert visible.mean(0).min() > 0.2 and visible.mean(0).max() < 0.8


def test_images_whose_visible_pixels_changed_are_counted():
    images = np.full((4, 10, 20, 3), 100, np.uint8)
    visible, completed = visible_pixels("left", 20, 4)[:, :10], images.copy()
    completed[0] = 130  # a little
    completed[1, :, :10] = 0  # what was hidden
    completed[2, 0, 19, 2] = 0  # one of 100 visible pixels
    completed[3, :2, 19, 0] = 131  # two of them
    assert count_changed(completed, images, visible) == 1
    assert count_changed(images, images, visible) == 0


def test_hidden_pixels_are_not_read_and_visible_ones_fit(tiny_model):
    rng = np.random.default_rng(0)
    codes = np.sort(np.stack([rng.permutation(32)[:8] for _ in range(16)]))  # two times eight
    images = np.asarray(tiny_model.decode(codes))
    visible = visible_pixels("left", 16, 1)[0]
    found = np.asarray(tiny_model.complete(images, visible))
    assert found.dtype == np.int32 and (np.diff(found) > 0).all()
    others = np.where(visible[..., None], images, rng.uniform(-1, 1, images.shape))
    np.testing.assert_array_equal(tiny_model.complete(others.astype(np.float32), visible), found)
    others = np.where(visible[..., None], images, np.nan)
    np.testing.assert_array_equal(tiny_model.complete(others.astype(np.float32), visible), found)

    def error(codes):
        squares = np.square(np.asarray(tiny_model.decode(codes)) - images).sum(-1)
        return squares[:, visible].sum(1)

    filled = np.where(visible[..., None], images, 0.0)
    assert error(found).sum() <= error(tiny_model.encode(filled)).sum()


def test_parents_are_where_it_may_begin(tiny_model):
    rng = np.random.default_rng(0)
    parents = np.sort(np.stack([rng.permutation(32)[:8] for _ in range(20)]))
    model = dataclasses.replace(tiny_model, parents=parents)
    images = model.decode(parents[:8])
    seen = jnp.ones((8, 16, 16, 1))
    guess = first_guess(model.encode, model.decode, model.space, parents, images, seen)
    np.testing.assert_array_equal(guess, parents[:8])
    assert model.complete(images, visible_pixels("patches", 16, 8, seed=2)).shape == (8, 8)


@pytest.mark.parametrize(
    "visible, prior, message",
    [
        (np.ones((16, 16), bool), True, "has no prior"),
        (np.ones((16, 16)), None, "visible is float32"),
        (np.ones((16, 8), bool), None, r"give bool \[16, 16\] or \[2, 16, 16\]"),
        (np.ones((3, 16, 16), bool), None, r"give bool \[16, 16\] or \[2, 16, 16\]"),
        (np.zeros((16, 16), bool), None, "no pixel of an image is visible"),
        (np.eye(2, dtype=bool)[0][:, None, None].repeat(16, 1).repeat(16, 2), None, "no pixel"),
    ],
)
def test_mistakes_are_one_error(tiny_model, visible, prior, message):
    with pytest.raises(ValueError, match=message):
        tiny_model.complete(np.zeros((2, 16, 16, 3), np.float32), visible, prior)


def test_negative_seeds_draw_patches_too():
    hidden = [~visible_pixels("patches", 16, 4, seed) for seed in (-1, 0)]
    assert (hidden[0].mean((1, 2)) == 0.5).all() and np.any(hidden[0] != hidden[1])


def test_images_are_checked_as_in_encode(tiny_model):
    with pytest.raises(ValueError, match="images have shape"):
        tiny_model.complete(np.zeros((2, 8, 8, 3), np.float32), np.ones((8, 8), bool))


def test_each_region_has_a_picture_of_its_own_and_what_is_drawn_is_said(
    tiny_model, tmp_path, capsys
):
    session = Session(tiny_model, load_dataset("random", image_size=16), tmp_path)
    for region in ("left", "centre"):
        write_completions(session, region, 16)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("completions_left.png", "completions_centre.png")
    }
    out, err = capsys.readouterr()
    assert "completing 16 images of which a part is hidden (left)" in out
    assert "of 16 completions change what is visible" in out
    assert "completing: 100%" in err and "16/16" in err


@pytest.mark.slow
def test_the_whole_image_is_to_the_right_of_the_completed_one(tiny_model, tmp_path):
    dataset = load_dataset("random", image_size=16)
    session = Session(tiny_model, dataset, tmp_path)
    write_completions(session, "left", 1)
    with Image.open(tmp_path / "completions_left.png") as file:
        picture = np.asarray(file)
    whole = dataset.test[0]["image"].repeat(8, 0).repeat(8, 1)
    height, width, _ = whole.shape
    parts = np.lib.stride_tricks.sliding_window_view(picture, (height, width), axis=(0, 1))
    places = np.argwhere((parts == whole.transpose(2, 0, 1)).all((-3, -2, -1)))
    assert len(places) == 1 and places[0, 1] > picture.shape[1] - 1.5 * width
