"""The type of the parameters of networks."""

from typing import Any

# A tree of arrays by name. `optax.Params` is no stricter for mypy, and long in the reference.
Params = Any
