"""PI-VQ in JAX: images as sets of discrete codes, by exact matching quantization.

`pivq_jax.load(workdir)` opens a trained model, `pivq_jax.from_pretrained` a published one, and
`pivq_jax.save_grid` writes its images. The import is lazy, so `pivq_jax.matching` can be used
alone, without data or training libraries.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["from_pretrained", "load", "save_grid"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pivq_jax.inference import opening

        return getattr(opening, name)
    raise AttributeError(f"module 'pivq_jax' has no attribute {name!r}")
