"""Compiler options for programs with convolutions."""

import functools

import jax
from jax.sharding import AbstractMesh, Mesh

# On CPU, XLA delegates convolutions to YNNPACK, which runs them on one thread (jaxlib 0.10). This
# value lists the other operations that are delegated by default, so convolutions stay with XLA,
# which uses all threads. This halves the time of Inception, and decoding and training steps with
# LPIPS take a tenth less (docs/trials.md).
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


def compiler_options(mesh: Mesh | AbstractMesh | None = None) -> dict[str, str]:
    """Returns XLA's options for programs with convolutions, by default on JAX's own devices."""
    if mesh is None or isinstance(mesh, AbstractMesh):
        platform = jax.default_backend()
    else:
        platform = mesh.devices.flat[0].platform
    return _CPU_OPTIONS if platform == "cpu" and _known_here() else {}


@functools.cache
def _known_here() -> bool:
    """Whether this version of jaxlib knows the options, which are experimental."""
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
