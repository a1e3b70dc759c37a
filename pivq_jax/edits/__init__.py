"""Edits of images by their labelled factors, and completions of images with hidden parts.

`python -m pivq_jax.edits` writes pictures of both, and edits images of one's own. In Python they
are `edit`, `read_factors` and `complete` of a `pivq_jax.inference.TrainedModel`: docs/edits.md.
"""

__all__: list[str] = []
