"""Atomic checkpoints of the training state with Orbax, which can be restored onto any mesh."""

import contextlib
import enum
import functools
import glob
import heapq
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import is_remote, sync_tree
from pivq_jax.common.parallel import from_first_process, max_over_processes, shardings_of
from pivq_jax.common.storage import causes, may_pass, tensorstore_status

# Key in `progress`; higher is better. A checkpoint without a score is never among the best.
SCORE = "score"


def check_place(workdir: Path, flag: str = "--workdir", writes: bool = True) -> None:
    """Checks that Orbax can write and read checkpoints in a directory of this name.

    Orbax finds checkpoints by glob patterns that contain the path, so special characters hide them;
    TensorStore reads a backslash as a slash. Reading alone is not affected by the patterns.
    """
    path = str(workdir) if is_remote(workdir) else workdir.absolute().as_posix()
    if is_remote(workdir) and not path.startswith("gs://"):
        raise InputError(
            f"{path}: Orbax keeps checkpoints in gs:// or on disks: choose another {flag}"
        )
    if "\\" in path or (writes and glob.escape(path) != path):
        raise InputError(
            f"{path} contains one of [ * ? \\, under which checkpoints are lost: choose another"
            f" {flag}"
        )


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints/<step>/`.

    Each is complete or not there: Orbax writes it under a temporary name, renames it, and only then
    deletes older ones. All processes of a run must take part in every call. Kept are the `keep`
    newest (with 1, none is left if that one is damaged) and the `keep_best` with the highest
    `progress["score"]`. On exit, all are written.
    """

    def __init__(
        self, workdir: Path, *, read_only: bool = False, keep: int = 2, keep_best: int = 0
    ) -> None:
        check_place(workdir, writes=not read_only)
        self.directory = (workdir if is_remote(workdir) else workdir.absolute()) / "checkpoints"
        self._read_only = read_only
        self._unsynced: int | None = None  # step of the newest checkpoint, if it was just written
        self._best = _Best(keep_best)
        latest = ocp.checkpoint_managers.LatestN(keep)
        policy = ocp.checkpoint_managers.AnyPreservationPolicy([latest, self._best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else policy,
            create=not read_only,
            # Incomplete checkpoints of killed runs would eventually fill the disk.
            cleanup_tmp_directories=not read_only,
        )
        self._manager = _Manager(self.directory, options=options)
        # Each process reads alone: in a barrier of Orbax, others would wait for one that cannot.
        alone = ocp.options.MultiprocessingOptions(active_processes={jax.process_index()})
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(), multiprocessing_options=alone
        )
        if not read_only:
            _raise_errors_only()
        for step in self.steps() if keep_best else []:
            read, damage = self._read(step, ocp.args.Composite(progress=ocp.args.JsonRestore()))
            if not damage:  # otherwise it has no score; see `restore`
                self._best.add(step, read["progress"])

    def steps(self) -> list[int]:
        """Returns the steps of complete checkpoints in ascending order, as process 0 finds them."""
        newest_first = sorted(self._manager.all_steps(), reverse=True)
        sent = from_first_process("".join(f"{step} " for step in newest_first))
        return sorted(
            map(int, sent.rpartition(" ")[0].split())
        )  # of over 2,000, the oldest are cut

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Starts to write a checkpoint in the background, unless there is one of this step.

        If the previous write failed, waits for this one, which may fit by now. OSError if a write
        is known to have failed, as on a full disk; earlier checkpoints are intact.
        """
        if step in self._manager.all_steps():
            return
        failed = ""
        try:
            self.wait()  # its deletions depend on the scores so far
        except OSError as error:
            failed = str(error)
        waits = max_over_processes(bool(failed))
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), progress=ocp.args.JsonSave(progress)
        )
        with self._write_errors():
            self._best.add(step, progress)
            self._manager.save(step, args=items)
            self._unsynced = step
        if waits:
            self.wait()
        if failed:
            print(f"{failed}; that of step {step} is written", file=sys.stderr, flush=True)

    def wait(self) -> None:
        """Waits until all checkpoints are written; OSError if a write failed."""
        with self._write_errors():
            self._finish()

    def _finish(self) -> None:
        """Waits for the current write and makes it survive a power cut.

        If two or more are kept, the one before it, which survives already, is not yet deleted.
        """
        self._manager.wait_until_finished()
        if self._unsynced is not None and jax.process_index() == 0:
            sync_tree(self.directory / str(self._unsynced))
        self._unsynced = None

    def restore(
        self, state: Any, mesh: Mesh, step: int | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Restores the newest readable checkpoint, or that of `step`, and its `progress`.

        `state` has the wanted shapes; a dictionary of some fields of the state restores only these.
        A damaged checkpoint is reported and the one before it used; unless `read_only`, it is then
        renamed to `<step>.damaged`. InputError if none is whole. A read that fails for another
        reason, such as a timeout, says nothing about the checkpoint: it ends in an OSError, with
        nothing changed.
        """
        kept = self.steps()
        if step is not None and step not in kept:
            others = ", ".join(map(str, kept)) or "none"
            raise InputError(f"{self.directory} holds no checkpoint of step {step}; kept: {others}")
        steps = kept if step is None else [step]
        if not steps:
            raise InputError(
                f"{self.directory.parent} holds no checkpoint: train first, with --mode=train and"
                " the same --config and --workdir"
            )
        shapes = jax.eval_shape(lambda state: state, state)
        places = ocp.checkpoint_utils.construct_restore_args(shapes, shardings_of(shapes, mesh))
        items = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(shapes, restore_args=places, partial_restore=True),
            progress=ocp.args.JsonRestore(),
        )
        damaged: list[int] = []
        for each in reversed(steps):
            read, damage = self._read(each, items)
            # A partial restore leaves arrays missing in the file as `jax.ShapeDtypeStruct`.
            arrays = [] if damage else jax.tree.leaves(read["state"])
            if not all(isinstance(x, jax.Array) for x in arrays):
                damage = "it holds other arrays than this config has"
            if not damage:
                self._set_aside(damaged)
                return read["state"], read["progress"]
            if self._read_only:
                self._manager.reload()
                if each not in self.steps():  # the run has deleted it, and has newer ones
                    return self.restore(state, mesh, step)
            damaged.append(each)
            print(
                f"the checkpoint of step {each} in {self.directory} cannot be read ({damage})"
                + ("; trying the one before" if each != steps[0] else ""),
                file=sys.stderr,
                flush=True,
            )
        raise InputError(
            f"no checkpoint in {self.directory} can be read with this config: see the lines above,"
            " and choose another --workdir"
        )

    def _read(self, step: int, items: ocp.args.Composite) -> tuple[Any, str]:
        """Reads items of a checkpoint; also returns what is damaged, '' if nothing is.

        All processes agree. Raises OSError if storage does not give it to all of them; any other
        error is a bug, or a lack of memory.
        """
        outcome, reason = _Outcome.READ, "another process cannot read it"
        try:
            value = self._reader.restore(self.directory / str(step), args=items)
        except Exception as error:
            outcome, reason = _judge(error), brief(error)
        worst = max_over_processes(outcome)
        if worst == _Outcome.READ:
            return value, ""
        if worst == _Outcome.DAMAGED:
            return None, reason
        raise OSError(
            f"the checkpoint of step {step} in {self.directory} cannot be read ({reason}); it may"
            " be whole and stays; the same command tries again"
        )

    def set_aside(self, step: int) -> bool:
        """Renames a checkpoint that is whole but of no use; False if there is none of this step."""
        with contextlib.suppress(OSError):  # the write may have failed
            self.wait()
        if there := step in self.steps():
            self._set_aside([step])
        return there

    def _set_aside(self, steps: list[int]) -> None:
        """Renames damaged checkpoints, so that their steps can be saved again."""
        if self._read_only or not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                names = (f"{step}.damaged{again}" for again in ("", *map(str, range(2, 1000))))
                free = (path for name in names if not (path := self.directory / name).exists())
                (self.directory / str(step)).rename(next(free))
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns any exception of the storage layers into an OSError that states what is intact."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):  # remote storage may not answer
                self._manager.reload()
            whole = self._manager.all_steps()
            remaining = (
                f"that of step {max(whole)} is whole" if whole else "there is none before it"
            )
            raise OSError(
                f"a checkpoint could not be written in {self.directory} ({brief(error)});"
                f" {remaining}; with more space the same command continues"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # A failed write does not hide the error that ends the run.
        ignored = contextlib.suppress(OSError) if kind else contextlib.nullcontext()
        with ignored, self._write_errors(), contextlib.closing(self._manager):
            self._finish()


@functools.cache
def _raise_errors_only() -> None:
    """Keeps Orbax's threads from printing their errors, thousands of lines on a full disk.

    The error is still raised where the write is waited for.
    """

    def is_shown(record: logging.LogRecord) -> bool:
        return not (record.exc_info and {"orbax", "asyncio"} & set(Path(record.pathname).parts))

    def report(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):  # of a thread that has ended
            before(unraisable)

    absl_logging.get_absl_logger().addFilter(is_shown)
    logging.getLogger("asyncio").addFilter(is_shown)
    before, sys.unraisablehook = sys.unraisablehook, report


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Always False: Orbax's thread would ask JAX about a past step, setting its count back."""
        return False


class _Best(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the checkpoints with the highest scores.

    Unlike Orbax's policy, it keeps the scores in memory, not in files.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._scores: dict[int, float] = {}

    def add(self, step: int, progress: dict[str, Any]) -> None:
        if SCORE in progress:
            self._scores[step] = progress[SCORE]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        scored = [(self._scores[x.step], x.step) for x in checkpoints if x.step in self._scores]
        best = {step for _, step in heapq.nlargest(self._count, scored)}
        return [x.step in best for x in checkpoints]


class _Outcome(enum.IntEnum):
    """The outcome of a read. If processes disagree, the largest value counts."""

    READ = 0
    DAMAGED = 1
    FAILED = 2


# What Orbax raises for damage: a file or an entry is missing; a file cannot be parsed, or
# TensorStore finds that it is too short or has another checksum or shape; JSON has another form.
_DAMAGE = (FileNotFoundError, ValueError, KeyError, AttributeError)
# The statuses of TensorStore that are due to the contents; "" means that there is no status.
_OF_CONTENTS = {"DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "INVALID_ARGUMENT", ""}


def _judge(error: Exception) -> _Outcome:
    """What an exception of Orbax says about a checkpoint. Raises it again if it says nothing."""
    if may_pass(error):
        return _Outcome.FAILED
    for each in causes(error):
        is_other = isinstance(each, OSError) and not isinstance(each, FileNotFoundError)
        if is_other or tensorstore_status(each) not in _OF_CONTENTS:  # such as missing permission
            return _Outcome.FAILED
    if any(isinstance(each, _DAMAGE) for each in causes(error)):
        return _Outcome.DAMAGED
    raise error
