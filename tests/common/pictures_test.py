"""Grids hold every image where it belongs, and files are written whole."""

import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from pivq_jax.common import pictures

H, W = 65, 66  # not enlarged


def images(*shape, seed=0, height=H, width=W):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, (*shape, height, width, 3), dtype=np.uint8)


@hypothesis.given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
@hypothesis.settings(max_examples=40)
def test_grid_places_every_image_and_fills_the_rest(count, columns, scale, pad):
    tiles = images(count, height=3, width=4)
    check_grid(pictures.grid(tiles, columns, pad, scale), tiles, columns, pad, scale)


@pytest.mark.parametrize("side, scale", [(8, 16), (64, 2), (65, 1), (200, 1)])
def test_small_images_are_enlarged(side, scale):
    tiles = images(3, height=side, width=side)
    check_grid(pictures.grid(tiles, 2), tiles, 2, 2, scale)


def check_grid(picture, tiles, columns, pad, scale) -> None:
    count, h, w, _ = tiles.shape
    columns = min(columns, count)  # none is empty
    rows = -(-count // columns)
    height, width = h * scale + pad, w * scale + pad
    assert picture.shape == (rows * height + pad, columns * width + pad, 3)
    assert picture.dtype == np.uint8
    rest = np.ones(picture.shape[:2], bool)
    for index, tile in enumerate(tiles):
        top, left = pad + index // columns * height, pad + index % columns * width
        place = np.s_[top : top + h * scale, left : left + w * scale]
        for dy in range(scale):
            for dx in range(scale):
                np.testing.assert_array_equal(picture[place][dy::scale, dx::scale], tile)
        rest[place] = False
    assert np.all(picture[rest] == 255)


def test_reconstructions_lie_below_their_originals():
    originals, reconstructions = images(3), images(3, seed=1)
    picture = pictures.reconstruction_grid(originals, reconstructions, columns=2)
    order = [*originals[:2], *reconstructions[:2], originals[2], None, reconstructions[2], None]
    blank = np.full((H, W, 3), 255, np.uint8)
    expected = pictures.grid([blank if o is None else o for o in order], 2)
    np.testing.assert_array_equal(picture, expected)


def test_fewer_images_than_columns_leave_no_empty_columns():
    picture = pictures.reconstruction_grid(images(2), images(2), columns=8)
    assert picture.shape == (2 * H + 6, 2 * W + 6, 3)


def test_samples_lie_between_their_parents():
    a, b, samples = images(3, seed=1), images(3, seed=2), images(3, seed=3)
    picture = pictures.sample_grid(a, b, samples, columns=2)
    assert picture.shape == (2 * (H + 8) + 8, 2 * (3 * W + 4 + 8) + 8, 3)
    triple = picture[8 : 8 + H, 8 : 8 + 3 * W + 4]
    for place, expected in enumerate((a[0], samples[0], b[0])):
        np.testing.assert_array_equal(triple[:, place * (W + 2) :][:, :W], expected)


def test_png_holds_the_picture_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "picture.png"
    picture = pictures.grid(images(4), 2)
    pictures.save_png(path, picture)
    pictures.save_png(str(path), picture[::-1])  # replaces
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture[::-1])
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    picture = pictures.grid(images(1), 1)
    pictures.save_png(path, picture)

    def full(path):
        os.truncate(path, 10)
        raise OSError("disk full")

    monkeypatch.setattr("pivq_jax.common.files.sync", full)
    with pytest.raises(OSError, match="disk full"):
        pictures.save_png(path, picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_refusals_name_the_value_and_the_remedy(tmp_path):
    with pytest.raises(TypeError, match=r"float64: give uint8; from \[-1, 1\]"):
        pictures.grid(images(2) / 255, 2)
    with pytest.raises(ValueError, match=r"\(65, 66, 3\): give \[M, H, W, 3\]"):
        pictures.grid(images(), 2)
    with pytest.raises(ValueError, match="not empty"):
        pictures.grid(images(0), 2)
    with pytest.raises(ValueError, match="same shape"):
        pictures.reconstruction_grid(images(2), images(3))
    with pytest.raises(ValueError, match=r"give \[H, W, 3\]"):
        pictures.save_png(tmp_path / "x.png", images(2))
    with pytest.raises(TypeError, match="float64"):
        pictures.save_png(tmp_path / "x.png", images(2)[0] / 2)


def test_usage_chart_sorts_the_shares_of_images():
    codes = np.array([[0, 1], [0, 2], [0, 2], [0, 2]])  # shares 1, 1/4, 3/4 of four images
    picture = pictures.usage_chart(codes, codebook_size=5, height=40)
    assert picture.shape == (44, 14, 3) and picture.dtype == np.uint8
    heights = (picture[..., 0] < 255).sum(0)[2:-2:2]
    np.testing.assert_array_equal(heights, [40, 30, 10, 0, 0])
    np.testing.assert_array_equal(picture[:, 2::2][:, :5], picture[:, 3::2][:, :5])


def test_usage_of_many_entries_is_shown_by_means_and_copies_count_once(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_BARS", 2)
    codes = np.array([[0, 1, 1], [0, 2, 2], [0, 2, 2], [0, 2, 2]])  # 1, 3/4, 1/4, 0: 7/8 and 1/8
    picture = pictures.usage_chart(codes, codebook_size=4, height=70)
    heights = (picture[..., 0] < 255).sum(0)[2:-2:2]
    np.testing.assert_array_equal(heights, [70, 10])


def test_a_curve_goes_from_the_lowest_to_the_highest_value_and_one_point_is_a_dot():
    picture = pictures.curve_chart("psnr", [100, 200, 400], [10.0, 30.0, 20.0], (100, 400))
    assert picture.shape == (140, 300, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero(np.all(picture == (70, 110, 180), axis=-1))
    middle = {x: rows[columns == x].mean() for x in (60, 290)}
    assert middle[60] == pytest.approx(130, abs=2) and middle[290] == pytest.approx(77, abs=2)
    peak = columns[rows < 28].mean()
    assert peak == pytest.approx(60 + 230 / 3, abs=2)  # a third of the steps
    dot = pictures.curve_chart("psnr", [100], [10.0], (100, 100))
    assert 5 <= np.all(dot == (70, 110, 180), axis=-1).sum() <= 25
