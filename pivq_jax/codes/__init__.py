"""Sets of codes: their space, capacity, pairing and exchange; all that the loss needs of sampling.

Public names are those of `pivq_jax.sampling`.
"""

__all__: list[str] = []
