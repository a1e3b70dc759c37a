"""Images as files of codes: 13 bytes an image for a set of 16 codes of 512, fewer with a prior.

`write` and `read` need the model that the codes belong to; `rank` and `unrank` of
`pivq_jax.sampling.CodeSpace` need none. The format of files is described in docs/codec_format.md.
"""

from pivq_jax.codec.files import ImageCodes, from_bytes, read, to_bytes, write

__all__ = ["ImageCodes", "from_bytes", "read", "to_bytes", "write"]
