"""Meshes and shardings; other modules are independent of the number of devices.

All computations use `jax.jit` with `NamedSharding`: a single program on global arrays, with
collectives inserted by the compiler.
"""

import contextlib
import hashlib
import os
import platform
import sys
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pivq_jax.common.errors import InputError, brief, printable

__all__ = ["make_mesh"]

# The batch is split over both axes; large parameters, with averages and moments, over the second.
DATA, FSDP = "data", "fsdp"
BATCH_AXES = (DATA, FSDP)
# Arrays with fewer elements are replicated, as splitting them costs latency and saves little.
MIN_SHARDED_SIZE = 2**14
GRACE = 10.0  # seconds; see `end_without_others`
PATIENCE = 900  # seconds in which all processes must have begun
LONGEST = 2**14  # bytes of what processes tell each other
LONGEST_VALUE = 100  # characters of a value that they tell; a config has about 100 values


def join_processes(how: str) -> None:
    """Joins the processes of a distributed run, before any other use of JAX.

    `how` is the value of --distributed; '' is a single process.
    """
    if not how:
        return
    try:
        if how == "auto":
            jax.distributed.initialize(initialization_timeout=PATIENCE)
            return
        address, count, index = how.split(",")
        if ":" not in address or not 0 <= int(index) < int(count):
            raise ValueError("an index counts from 0 and is below the number of processes")
        jax.distributed.initialize(address, int(count), int(index), initialization_timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        if "DEADLINE_EXCEEDED" in str(error):
            raise OSError(f"the other processes were not found: {brief(error)}") from error
        raise InputError(
            f"--distributed={how}: {brief(error)}: use auto on a TPU slice, under"
            " Slurm or Open MPI, else ADDRESS:PORT,COUNT,INDEX, such as 10.0.0.1:8476,2,0"
        ) from error


def end_without_others(code: int) -> None:
    """Ends a process of several that has failed, after a few seconds, with its exit code.

    At exit JAX waits five minutes for the others, which may wait for this one, and aborts them all.
    Not at once: without process 0, others that fail as well would be aborted before they say why.
    """
    if code and jax.distributed.is_initialized():
        sys.stdout.flush()
        ending = threading.Timer(GRACE, os._exit, (code,))
        ending.daemon = True
        ending.start()


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with axes ('data', 'fsdp').

    Args:
        fsdp: number of devices that share one copy of the state, a divisor of their total number.
        devices: sequence of devices; by default all devices of all processes.
    """
    devices = jax.devices() if devices is None else devices
    shape = (len(devices) // fsdp, fsdp)
    # Not `jax.make_mesh`: it refuses GPUs of several machines, and on most kinds of TPU slices an
    # axis that is part of one of the slice.
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array with a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding of an array whose axis `axis` is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH_AXES))


def shardings_of(state: Any, mesh: Mesh) -> Any:
    """Returns the sharding of each array: large ones are split along their largest axis that fits.

    This is fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054).
    """
    parts = mesh.shape[FSDP]

    def place(x: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [i for i, size in enumerate(x.shape) if size % parts == 0]
        if parts == 1 or not axes or x.size < MIN_SHARDED_SIZE:
            return replicated(mesh)
        largest = max(axes, key=lambda i: x.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, FSDP))

    return jax.tree.map(place, state)


def put_batch(rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """Assembles a global array [B, ...], split over all devices, from the rows of each process.

    These are [B / P, ...] of P processes; B is divisible by the number of devices.
    """
    return jax.make_array_from_process_local_data(over_batch(mesh), rows)


def split_rows(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Splits the rows of an array, of which every process has a full copy, over all devices."""
    if jax.process_count() == 1:
        return jax.device_put(x, over_batch(mesh))
    return jax.make_array_from_process_local_data(over_batch(mesh), np.asarray(x), x.shape)


def to_first_device(tree: Any) -> Any:
    """Moves replicated or NumPy arrays to this process's first device."""
    return jax.tree.map(
        lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else jnp.asarray(x), tree
    )


def map_over_batch(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Maps `function(batched, shared)` over the rows of each device, without communication.

    The compiler would communicate in every iteration of a loop, as in matching.
    """

    def mapped(batched: Any, shared: Any) -> Any:
        rows = jax.tree.leaves(batched)[0].shape[0]
        split = PartitionSpec() if rows % mesh.size else PartitionSpec(BATCH_AXES)
        # check_vma=False: the solvers' loops carry values that vary and values that do not.
        return jax.shard_map(
            function, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split, check_vma=False
        )(batched, shared)

    return mapped


def from_first_process(text: str) -> str:
    """Returns what process 0 gives, at most `LONGEST` bytes of it; all processes must call this."""
    return _from_process(0, text)


def _from_process(index: int, text: str) -> str:
    if jax.process_count() == 1:
        return text
    content = text.encode(errors="backslashreplace")[:LONGEST]
    sent = np.frombuffer(content.ljust(LONGEST, b"\0"), np.uint8)
    is_source = jax.process_index() == index
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent, is_source), np.uint8)
    return received.tobytes().rstrip(b"\0").decode(errors="replace")


def check_alike(values: Mapping[str, Any], remedy: str) -> None:
    """Refuses processes that differ in named values; all must call this, and all fail if one does.

    Together they would train a model of neither. The error names up to five values of the first
    process that differs from process 0.
    """
    if jax.process_count() == 1:
        return
    own = [f"{name} = {_shortened(repr(value))}" for name, value in values.items()]
    first = from_first_process("\n".join(own)).split("\n")
    here, there = (sorted({*lines} - {*others}) for lines, others in ((own, first), (first, own)))
    message = ""
    if here or there:
        more = ", ..." if len(here) > 5 else ""
        message = (
            f"process {jax.process_index()} has {', '.join(here[:5])}{more}, but process 0"
            f" {', '.join(there[:5])}{more}: {remedy}"
        )
    differs = np.asarray(multihost_utils.process_allgather(np.int32(bool(message))))
    if differs.any():
        raise InputError(_from_process(int(differs.argmax()), message))


def _shortened(text: str) -> str:
    """A text, or the start of a long one and a hash of it: long paths differ at their end."""
    if len(text) <= LONGEST_VALUE:
        return text
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:8]
    return f"{text[: LONGEST_VALUE - 20]}... (hash {digest})"


def check_same_arrays(name: str, arrays: Any, remedy: str) -> None:
    """Refuses processes whose nested arrays differ, as those of two files; see `check_alike`."""
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    check_alike({name: f"hash {digest.hexdigest()[:8]}"}, remedy)


def check_in_first_process(check: Callable[[], Any]) -> None:
    """Runs `check` in process 0; all processes must call this, and all fail if it does."""
    failure = ""
    if jax.process_index() == 0:
        try:
            check()
        except Exception as error:  # whatever it is, the others wait for an answer
            kind = f"OSError:{error.errno}" if isinstance(error, OSError) else "InputError"
            failure = f"{kind} {str(error) or repr(error)}"
    if failure := from_first_process(failure):
        kind, _, message = failure.partition(" ")
        if kind == "InputError":
            raise InputError(message)
        raised = OSError(message)
        code = kind.partition(":")[2]
        raised.errno = int(code) if code.isdigit() else None
        raise raised


def max_over_processes(number: int) -> int:
    """Returns the largest number that any process gives; all processes must call this."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def machine() -> str:
    """Identifies this machine since it was started; hosts of containers may have one name."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def processes_of_host() -> int:
    """Returns how many processes run on this machine; all processes must call this."""
    own = np.uint32(zlib.crc32(f"{platform.node()} {machine()}".encode()))
    return int(np.sum(multihost_utils.process_allgather(own) == own))


def print_once(line: str) -> None:
    """Prints a line in the first process only. What a file says may contain anything."""
    if jax.process_index() == 0:
        print(printable(line), flush=True)
