"""Profiler traces of a few training steps."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax

from pivq_jax.common.files import is_remote, outlive_bucket, write_atomically
from pivq_jax.common.parallel import say


class ProfilerTrace:
    """A profiler trace of a range of steps in `<workdir>/profile`, for TensorBoard or Perfetto."""

    def __init__(self, workdir: Path, first_step: int, steps: int) -> None:
        self._directory = workdir / "profile"
        self._first, self._last = first_step, first_step + steps
        self._running = ""  # local directory of the running trace

    def at(self, step: int, pending: Any) -> None:
        """Starts or stops the trace if due; waits for `pending`, the arrays of the last step."""
        if step == self._first < self._last:
            jax.block_until_ready(pending)  # exclude earlier steps
            remote = is_remote(self._directory)
            self._running = tempfile.mkdtemp() if remote else str(self._directory)
            jax.profiler.start_trace(self._running)
        elif step == self._last:
            self.close(pending)

    def close(self, pending: Any = None) -> None:
        """Stops the trace if it runs, also that of a run that ends early."""
        if not self._running:
            return
        jax.block_until_ready(pending)
        jax.profiler.stop_trace()
        local, self._running = Path(self._running), ""
        remote = is_remote(self._directory)  # while the profiler writes local files only
        with outlive_bucket(self._directory):
            for file in local.rglob("*.*") if remote else ():
                write_atomically(self._directory / file.relative_to(local), file.read_bytes())
            say(f"profile of steps {self._first} to {self._last} in {self._directory}")
        if remote:
            shutil.rmtree(local)
