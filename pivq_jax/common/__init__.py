"""What all other packages may use: errors, files, devices, compilation, pictures.

What is public is in the `__all__` of the modules named here, none of which this package imports.
"""

__all__ = ["errors", "parallel", "pictures"]
