"""Evaluation of trained models: metrics and pictures.

What is public is in the `__all__` of the modules named here, none of which this package imports.
Import those you need::

    from pivq_jax.evaluation.capacity import capacity
"""

__all__ = ["atlas", "attributes", "capacity", "features", "frechet", "prdc", "reconstruction"]
