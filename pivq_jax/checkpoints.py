"""Orbax in one place: atomic checkpoints of the training state, restored onto any mesh."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from pivq_jax.errors import InputError
from pivq_jax.parallel import shardings_of

KEPT = 2  # the newest, and the one before in case the newest is damaged


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints/<step>/`.

    Orbax writes each to a temporary name and renames it when it is complete, so a killed run
    leaves only whole ones.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
        self.directory = workdir.absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else KEPT, create=not read_only
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: dict[str, float]) -> None:
        """Begin to write; training may go on meanwhile. `progress` is small and JSON."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), progress=ocp.args.JsonSave(progress)
        )
        self._manager.save(step, args=items)

    def restore(self, state: Any, mesh: Mesh) -> tuple[Any, dict[str, float]]:
        """The newest state and its progress.

        Args:
            state: a tree of arrays or `jax.ShapeDtypeStruct`s, as `jax.eval_shape` gives it. A
                dictionary with some of the state's fields restores these alone.
            mesh: the mesh onto which the arrays are placed.

        Raises:
            InputError: there is no checkpoint.
        """
        step = self.latest_step()
        if step is None:
            raise InputError(
                f"{self.directory.parent} holds no checkpoint: train first, with --mode=train and"
                " the same --config and --workdir"
            )
        target = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            state,
            shardings_of(state, mesh),
        )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                target,
                restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                partial_restore=True,
            ),
            progress=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["progress"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()
