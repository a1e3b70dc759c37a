"""Mesh and sharding in one place; the rest of the code does not know how many devices there are.

jit with `NamedSharding` is used throughout, the successor of pmap and pjit: one program, arrays
that say where they live, and collectives that the compiler inserts.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXIS = "data"


def make_mesh() -> Mesh:
    """A one-axis mesh ('data') over all devices."""
    return jax.make_mesh((jax.device_count(),), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays of this process' rows; with one process, of the whole batch."""
    return {
        name: jax.make_array_from_process_local_data(over_batch(mesh), value)
        for name, value in batch.items()
    }


def map_over_batch(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """`function(batched, shared)` run on each device's own rows, without any communication.

    The first argument and every result are split along their leading axis, the second argument is
    whole on every device. Without a mesh it is the function itself.
    """
    if mesh is None:
        return function
    split = PartitionSpec(BATCH_AXIS)
    # check_vma=False: the loops inside the solvers carry values that vary and values that do not.
    return jax.shard_map(
        function, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split, check_vma=False
    )
