"""Mesh and sharding in one place; the rest of the code does not know how many devices there are.

jit with `NamedSharding` is used throughout, the successor of pmap and pjit: one program, arrays
that say where they live, and collectives that the compiler inserts.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pivq_jax.common.errors import InputError

# The batch is split over both; large parameters, with their averages and moments, over the second.
DATA, FSDP = "data", "fsdp"
BATCH_AXES = (DATA, FSDP)
# Smaller arrays are kept whole everywhere: splitting them saves nothing and costs latency.
MIN_SHARDED_SIZE = 2**14


def join_processes(how: str) -> None:
    """Become one of the processes of a run, before anything else is asked of JAX.

    Args:
        how: '' for a run of one process; 'auto' where JAX finds the others, as on the hosts of a
            TPU slice, in a Slurm step and under Open MPI; or 'ADDRESS:PORT,COUNT,INDEX': where
            process 0 listens, how many there are, and which this is.

    Raises:
        InputError: of another form, or the others cannot be found or reached.
    """
    if not how:
        return
    try:
        if how == "auto":
            jax.distributed.initialize()
            return
        address, count, index = how.split(",")
        if ":" not in address or not 0 <= int(index) < int(count):
            raise ValueError("an index counts from 0 and is below the number of processes")
        jax.distributed.initialize(address, int(count), int(index))
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--distributed={how}: {str(error).splitlines()[0]}: use auto on a TPU slice, under"
            " Slurm or Open MPI, else ADDRESS:PORT,COUNT,INDEX, such as 10.0.0.1:8476,2,0"
        ) from error


def make_mesh(fsdp: int = 1, devices: Any = None) -> Mesh:
    """A mesh ('data', 'fsdp') over all devices; `fsdp` divides their number."""
    devices = jax.devices() if devices is None else devices
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """This axis split over the whole mesh."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH_AXES))


def shardings_of(state: Any, mesh: Mesh) -> Any:
    """Where each array of a training state lives: a tree of `NamedSharding` like `state`.

    Fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054): arrays of at least
    `MIN_SHARDED_SIZE` elements are split over 'fsdp' along their largest axis that it divides.

    Args:
        state: a tree of arrays or of `jax.ShapeDtypeStruct`.
        mesh: of `make_mesh`.
    """
    parts = mesh.shape[FSDP]

    def place(x: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [i for i, size in enumerate(x.shape) if size % parts == 0]
        if parts == 1 or not axes or x.size < MIN_SHARDED_SIZE:
            return replicated(mesh)
        largest = max(axes, key=lambda i: x.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, FSDP))

    return jax.tree.map(place, state)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays of this process' rows; with one process, of the whole batch."""
    return {
        name: jax.make_array_from_process_local_data(over_batch(mesh), value)
        for name, value in batch.items()
    }


def split_rows(x: jax.Array, mesh: Mesh) -> jax.Array:
    """An array that every process has whole, with its rows split over the devices."""
    if jax.process_count() == 1:
        return jax.device_put(x, over_batch(mesh))
    return jax.make_array_from_process_local_data(over_batch(mesh), np.asarray(x), x.shape)


def own_copy(tree: Any) -> Any:
    """Of arrays that are whole on every device, the copy on this process' first one."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def map_over_batch(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`function(batched, shared)` run on each device's own rows, without any communication.

    The first argument and every result are split along their leading axis, the second argument is
    whole on every device. Rows that the devices do not divide are not split: each device runs all.
    Matching is run so: a compiler would split its loops by communication in each of their turns.
    """

    def mapped(batched: Any, shared: Any) -> Any:
        rows = jax.tree.leaves(batched)[0].shape[0]
        split = PartitionSpec() if rows % mesh.size else PartitionSpec(BATCH_AXES)
        # check_vma=False: the solvers' loops carry values that vary and values that do not.
        return jax.shard_map(
            function, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split, check_vma=False
        )(batched, shared)

    return mapped


def say(line: str) -> None:
    """Print it once, however many processes there are."""
    if jax.process_index() == 0:
        print(line, flush=True)
