"""Image files from the page, which may be anything."""

import io

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import MAX_PIXELS, decode_image, pillow

# The largest file that is accepted, in bytes: a PNG file of a camera of 10 million pixels.
MAX_BYTES = 2**25


def read_image(content: bytes, size: int) -> np.ndarray:
    """Decodes a PNG or JPEG file and resizes its central square, as `image_folder` does.

    Format and size are taken from the header, before any pixel is decoded. Returns uint8 [size,
    size, 3].
    """
    Image = pillow()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
            width, height = opened.size
    except Image.DecompressionBombError as error:
        raise InputError(f"the image has too many pixels: give at most {MAX_PIXELS:,}") from error
    except Exception as error:  # Pillow's readers raise almost any type for a damaged file
        raise InputError("the file is no PNG or JPEG image: choose another one") from error
    if width * height > MAX_PIXELS:
        raise InputError(
            f"the image has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}: make it"
            " smaller"
        )
    return decode_image(io.BytesIO(content), size, name="you gave")
