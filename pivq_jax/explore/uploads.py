"""Image files from the page, which may be anything."""

import io

import numpy as np

from pivq_jax.data.images import decode_image

# The largest file that is accepted, in bytes: a PNG file of a camera of 10 million pixels.
MAX_BYTES = 2**25


def read_image(content: bytes, size: int) -> np.ndarray:
    """Decodes a PNG or JPEG file and resizes its central square, as `image_folder` does.

    Format and size are taken from the header, before any pixel is decoded. Returns uint8 [size,
    size, 3].
    """
    return decode_image(io.BytesIO(content), size, name="you gave", formats=("PNG", "JPEG"))
