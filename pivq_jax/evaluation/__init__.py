"""Evaluation of trained models: metrics and pictures.

This package imports none of its modules; import those you need, such as
`pivq_jax.evaluation.capacity`.
"""
