"""Training: objective, optimizer, steps, loop, checkpoints and logs.

What is public is in `build`, which this package does not import: it needs packages that a trained
model does without.
"""

__all__ = ["build"]
