"""Images as files of codes: 13 bytes an image for a set of 16 codes of 512.

`write` and `read` need the model that the codes belong to, `rank` and `unrank` need none. The
format of files is described in docs/codec.md.
"""

from pivq_jax.codec.enumeration import bytes_per_image, rank, unrank
from pivq_jax.codec.files import ImageCodes, fingerprint, read, write

__all__ = [
    "ImageCodes",
    "bytes_per_image",
    "fingerprint",
    "rank",
    "read",
    "unrank",
    "write",
]
