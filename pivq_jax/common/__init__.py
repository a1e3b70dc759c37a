"""Helpers for all other packages: errors, files, devices, compilation, pictures.

Public names are in the `__all__` of the modules named here, which this package does not import.
"""

__all__ = ["errors", "parallel", "pictures"]
