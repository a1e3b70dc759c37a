"""What `benchmarks.training_step` counts as matching."""

from functools import partial

import jax

from benchmarks.training_step import MATCHING
from launch.hlo import Program
from pivq_jax.model.quantizer import assign


def test_the_loops_of_the_quantizer_are_counted():
    latents = jax.random.normal(jax.random.key(0), (4, 5, 2))
    codebook = jax.random.normal(jax.random.key(1), (8, 2))
    matching = partial(assign, kind="matching")
    compiled = jax.jit(matching).lower(latents, codebook).compile()
    program = Program(compiled.as_text(), devices=1)
    loops = [x.scope for x in program.computations[program.entry] if x.opcode == "while"]
    assert loops and all(MATCHING.search(scope) for scope in loops)
