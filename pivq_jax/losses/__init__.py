"""Loss functions of training. LPIPS, the perceptual loss, can also be used on its own.

Public names are in the modules named here, which this package does not import: the functions need
none of the packages that read weights.
"""

__all__ = ["lpips_weights", "perceptual"]
