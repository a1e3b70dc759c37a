"""docs/explorer/headers.js beside Pillow."""

from PIL import Image

from tests.explore.image_files import claimed_jpeg, claimed_png, content_of, picture
from tests.explore.node import run_js

BODY = "answer(given.files.map((file) => claimedSize(Uint8Array.from(file))));"
EXIF = Image.Exif()
EXIF[0x010E] = "a description " * 4_000  # a segment of nearly 64 KB before the frame
EXIF[0x0112] = 6  # turned: the header has the size before


def claimed_sizes(folder, *files: bytes) -> list[list[int] | None]:
    found = run_js("headers.js", "claimedSize", BODY, folder, files=[list(file) for file in files])
    return [size and [size["width"], size["height"]] for size in found]


def test_the_size_is_that_of_the_picture(tmp_path):
    cases = [
        ("PNG", {}),
        ("PNG", {"exif": EXIF}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": EXIF, "icc_profile": bytes(200_000), "comment": b"\xff\xc0" * 20}),
    ]
    cases += [("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": EXIF})]
    files = [content_of(picture(300, 201), kind, **options) for kind, options in cases]
    assert claimed_sizes(tmp_path, *files) == [[300, 201]] * len(cases)


def test_the_size_is_read_from_the_header_alone(tmp_path):
    padded = claimed_jpeg(65_000, 7).replace(b"\xff\xc0", b"\xff\xff\xff\xc0")
    sizes = claimed_sizes(tmp_path, claimed_png(2**31 - 1, 3), padded)
    assert sizes == [[2**31 - 1, 3], [65_000, 7]]


def test_what_is_cut_short_or_of_another_kind_has_no_size(tmp_path):
    png, jpeg, gif = (content_of(picture(), kind) for kind in ("PNG", "JPEG", "GIF"))
    assert claimed_sizes(tmp_path, png[:20], jpeg[:20], gif) == [None] * 3
