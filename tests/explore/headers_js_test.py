"""docs/explorer/headers.js beside Pillow."""

import numpy as np
import pytest
from PIL import Image

from tests.explore.image_files import claimed_jpeg, claimed_png, content_of, picture
from tests.explore.node import run_js

BODY = "answer(claimedSize(given.content));"
EXIF = Image.Exif()
EXIF[0x010E] = "a description " * 4_000  # a segment of nearly 64 KB before the frame
EXIF[0x0112] = 6  # turned: the header has the size before


def claimed_size(content: bytes, folder) -> list[int] | None:
    array = np.frombuffer(content, np.uint8)
    found = run_js("headers.js", "claimedSize", BODY, folder, content=array)
    return found and [found["width"], found["height"]]


@pytest.mark.parametrize(
    "kind, options",
    [
        ("PNG", {}),
        ("PNG", {"exif": EXIF}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": EXIF, "icc_profile": bytes(200_000), "comment": b"\xff\xc0" * 20}),
    ],
)
def test_the_size_is_that_of_the_picture(kind, options, tmp_path):
    content = content_of(picture(300, 201), kind, **options)
    assert claimed_size(content, tmp_path) == [300, 201]


def test_the_size_is_read_from_the_header_alone(tmp_path):
    assert claimed_size(claimed_png(2**31 - 1, 3), tmp_path) == [2**31 - 1, 3]
    padded = claimed_jpeg(65_000, 7).replace(b"\xff\xc0", b"\xff\xff\xff\xc0")
    assert claimed_size(padded, tmp_path) == [65_000, 7]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_what_is_cut_short_or_of_another_kind_has_no_size(kind, tmp_path):
    content = content_of(picture(), kind)
    assert claimed_size(content[:20] if kind != "GIF" else content, tmp_path) is None
