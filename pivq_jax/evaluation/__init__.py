"""Evaluation of trained models: metrics and pictures.

Public names are in the `__all__` of the modules named here, which this package does not import.
Import those you need::

    from pivq_jax.evaluation.frechet import frechet_distance
"""

__all__ = ["atlas", "attributes", "features", "frechet", "prdc"]
