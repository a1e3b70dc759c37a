"""Training: objective, optimizer, steps, loop, checkpoints and logs.

What is public is in the `__all__` of the modules named here, none of which this package imports:
they need packages that a trained model does without.
"""

__all__ = ["build", "checkpoints", "loop", "steps", "stopping"]
