"""Training: objective, optimizer, steps, loop, checkpoints and logs.

Public names are in `build`, which this package does not import, as it needs packages that the use
of a trained model does not need.
"""

__all__ = ["build"]
