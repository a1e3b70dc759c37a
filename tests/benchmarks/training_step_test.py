"""What `benchmarks.training_step` counts as matching."""

import jax
import pytest

from benchmarks.training_step import MATCHING
from launch.hlo import Program
from pivq_jax.model.quantizer import assign_in_stages, match_latents


@pytest.mark.parametrize("stages", [1, 3])
def test_the_loops_of_the_quantizer_are_counted(stages):
    latents = jax.random.normal(jax.random.key(0), (4, 5, 2))
    codebook = jax.random.normal(jax.random.key(1), (8 * stages, 2 if stages == 1 else 4))

    def assign(latents, codebook):
        return assign_in_stages(latents, codebook, "matching", match_latents, stages)

    compiled = jax.jit(assign).lower(latents, codebook).compile()
    program = Program(compiled.as_text(), devices=1)
    loops = [x.scope for x in program.computations[program.entry] if x.opcode == "while"]
    assert loops and all(MATCHING.search(scope) for scope in loops)
