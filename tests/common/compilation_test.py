"""Compiler options for convolutions."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common import compilation
from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import make_mesh


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_convolutions_on_a_cpu_are_left_to_xla_and_are_the_same():
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.normal(size=(2, 8, 8, 4))),
        jnp.asarray(rng.normal(size=(3, 3, 4, 5))),
    )
    options = compiler_options(make_mesh())
    assert options == compiler_options()
    ours = jax.jit(convolve, compiler_options=options).lower(x, kernel).compile()
    theirs = jax.jit(convolve).lower(x, kernel).compile()
    if options:  # else this jaxlib has other names for them
        assert "ynn" not in (ours.as_text() or "")
    np.testing.assert_allclose(ours(x, kernel), theirs(x, kernel), rtol=1e-5, atol=1e-5)


def test_options_are_for_cpus_alone():
    mesh: Any = SimpleNamespace(devices=np.array([[SimpleNamespace(platform="tpu")]]))
    assert compiler_options(mesh) == {}
    abstract = jax.sharding.AbstractMesh((8,), ("data",))
    assert compiler_options(abstract) == compiler_options()


def test_options_that_this_jaxlib_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_CPU_OPTIONS", {"xla_cpu_of_another_version": "1"})
    compilation._known_here.cache_clear()
    assert compiler_options() == {}
    compilation._known_here.cache_clear()
