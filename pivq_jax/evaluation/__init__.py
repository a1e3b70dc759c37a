"""Evaluation: what a trained model can say, how well it says it, and pictures of both.

Nothing is imported here; import the module that is needed, such as
`pivq_jax.evaluation.capacity`.
"""
