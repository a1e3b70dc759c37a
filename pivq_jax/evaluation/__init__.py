"""Evaluation of trained models: metrics and pictures.

Nothing is imported here; import the modules that are needed, such as
`pivq_jax.evaluation.capacity`.
"""
