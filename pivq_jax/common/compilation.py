"""What the compiler is told about programs with convolutions."""

import functools

import jax
from jax.sharding import AbstractMesh, Mesh

# On a CPU, XLA hands convolutions to YNNPACK, which ran them on one thread (jaxlib 0.10). Listing
# what else it takes by default leaves them to XLA, which uses all: Inception takes half the time,
# decoding and a training step with LPIPS a tenth less (docs/interop.md).
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


def compiler_options(mesh: Mesh | AbstractMesh | None = None) -> dict[str, str]:
    """For `jax.jit` of such a program on this mesh; without devices, on JAX's default ones."""
    if mesh is None or isinstance(mesh, AbstractMesh):
        platform = jax.default_backend()
    else:
        platform = mesh.devices.flat[0].platform
    return _CPU_OPTIONS if platform == "cpu" and _known_here() else {}


@functools.cache
def _known_here() -> bool:
    """Whether this jaxlib knows the options, which are experimental."""
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
