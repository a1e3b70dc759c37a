"""What commands with a model have in common; a tool is written with it, as `pivq_jax.explore` is.

`program` has the flags, their checks and the exit codes; `task` opens what the flags name. Public
names are in the `__all__` of these modules, which this package does not import.
"""

__all__ = ["program", "task"]
