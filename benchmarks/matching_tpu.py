"""Estimates of the TPU compiler for matching: sequential steps times cycles per step.

The compiler annotates each operation of a program with `estimated_cycles`. Those of a loop body are
summed and multiplied by the number of iterations for real costs, counted on this machine.
Transfers, program launches, and gathers and scatters, for which the compiler gives no estimate, are
not included, on either side.
"""

import re
from functools import partial
from typing import Any

import jax
import numpy as np

from launch.hlo import Program
from pivq_jax.matching import auction, certificate

_MEGAHERTZ = 1500.0  # nominal clock frequency, to convert cycles into time


def cycles(program: Program, name: str) -> int:
    """Cycles of the operations of a computation, without loops and branches that it calls."""
    texts = (instruction.attributes for instruction in program.computations[name])
    return sum(int(n) for text in texts for n in re.findall(r'"estimated_cycles":"(\d+)"', text))


def called(program: Program, name: str, opcode: str) -> list[str]:
    """What takes most cycles of each "while" (its body) or "conditional" of a computation."""
    calls = [each for each in program.computations[name] if each.opcode == opcode]
    return [max(each.called, key=partial(cycles, program)) for each in calls]


def compile_for(topology: str, solve: Any, shape: tuple[int, ...]) -> Program:
    """Compiles a function of one float32 array for the first device of a TPU slice."""
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    sharding = jax.sharding.SingleDeviceSharding(devices[0])
    argument = jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)
    return Program(str(jax.jit(solve).lower(argument).compile().as_text()), devices=1)


def lockstep_steps(cost: np.ndarray) -> int:
    """Iterations of a row-by-row shortest-path solver under vmap.

    For each row, the slowest problem of the batch determines their number.
    """
    batch, num_rows, num_columns = cost.shape
    cost = cost.astype(np.float64)
    turns = np.zeros((batch, num_rows), int)
    for b in range(batch):
        prices, row_of = np.zeros(num_columns), np.full(num_columns, -1)
        for row in range(num_rows):
            distance, done = cost[b, row] - prices, np.zeros(num_columns, bool)
            pred = np.full(num_columns, row)
            while True:
                turns[b, row] += 1
                column = int(np.argmin(np.where(done, np.inf, distance)))
                level, owner = distance[column], row_of[column]
                if owner < 0:
                    break
                done[column] = True
                onward = cost[b, owner] - prices - (cost[b, owner, column] - prices[column] - level)
                closer = ~done & (onward < distance)
                distance, pred = np.where(closer, onward, distance), np.where(closer, owner, pred)
            prices = np.where(done, prices + distance - level, prices)
            column_of = {int(r): c for c, r in enumerate(row_of) if r >= 0}
            while True:
                owner = int(pred[column])
                row_of[column] = owner
                if owner == row:
                    break
                column = column_of[owner]
    return int(turns.max(0).sum())


def estimate(topology: str, cost: np.ndarray, kind: str) -> dict[str, Any]:
    """Prints and returns the estimate for `auction` and for optax under vmap."""
    import optax

    def own(cost: jax.Array) -> Any:
        return auction.solve(certificate.prepare(cost)[0])

    steps = jax.device_get(jax.jit(own)(cost)[2])
    program = compile_for(topology, own, cost.shape)
    # In program order: rounds, then waves; inside a wave, the end of a search.
    loops = called(program, program.entry, "while")
    rounds, waves = [loop for loop in loops if cycles(program, loop)][-2:]
    ending = called(program, waves, "conditional")[-1]
    parts = {
        "rounds": int(steps.rounds) * cycles(program, rounds),
        "waves": int(steps.waves) * cycles(program, waves),
        "searches": int(steps.searches) * cycles(program, ending),
    }

    peer = compile_for(topology, jax.vmap(optax.assignment.hungarian_algorithm), cost.shape)
    outer = max(called(peer, peer.entry, "while"), key=lambda n: len(called(peer, n, "while")))
    inner = max(cycles(peer, loop) for loop in called(peer, outer, "while"))
    turns = lockstep_steps(cost)
    theirs = turns * inner + cost.shape[1] * cycles(peer, outer)
    ours = sum(parts.values())
    size = "x".join(map(str, cost.shape))
    print(
        f"TPU {topology}, {size} {kind}: auction {ours:.3g} cycles"
        f" ({ours / _MEGAHERTZ / 1e3:.1f} ms), optax {theirs:.3g} in {turns} steps"
        f" ({theirs / _MEGAHERTZ / 1e3:.1f} ms): {theirs / ours:.1f} times (at least 8)"
    )
    print("  cycles:", {name: f"{part:.3g}" for name, part in parts.items()}, flush=True)
    return {"kind": kind, "auction": ours, "parts": parts, "optax": theirs, "optax_steps": turns}
