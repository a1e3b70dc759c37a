"""Files that a person may drop onto the page."""

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import load_image
from pivq_jax.explore.engine import read_image
from tests.explore.image_files import claimed_jpeg, claimed_png, content_of, picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_are_cropped_as_a_folder_of_images_is(kind, tmp_path):
    content = content_of(picture(), kind)
    (tmp_path / "image.png").write_bytes(content)
    np.testing.assert_array_equal(read_image(content, 16), load_image(tmp_path / "image.png", 16))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_refused(kind):
    with pytest.raises(InputError, match="PNG or JPEG"):
        read_image(content_of(picture(), kind), 16)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe", b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(InputError, match="PNG or JPEG"):
        read_image(content, 16)


def test_damaged_images_are_refused():
    for kind in ("PNG", "JPEG"):
        content = content_of(picture(200, 200), kind)
        with pytest.raises(InputError, match="cannot read"):
            read_image(content[: len(content) // 2], 16)


@pytest.mark.parametrize("width, height", [(20_000, 10_000), (100_000, 100_000), (2**20, 2**10)])
def test_huge_images_are_refused_by_their_header(width, height):
    with pytest.raises(InputError, match="pixels"):
        read_image(claimed_png(width, height), 16)


def test_a_huge_jpeg_is_refused_by_its_header_too():
    with pytest.raises(InputError, match="exceeds limit of 178956970 pixels"):
        read_image(claimed_jpeg(20_000, 10_000), 16)
