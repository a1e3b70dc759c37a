"""Where a run says what it does: console, TensorBoard and JSON lines."""

import json
import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter

from pivq_jax.files import write_atomically


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class TrainingLog:
    """Console lines with ETA, `log.jsonl` and TensorBoard events, all continued after a resume.

    A context manager: leaving it writes out what is still buffered.
    """

    def __init__(self, workdir: Path, first_step: int, total_steps: int) -> None:
        self._path = workdir / "log.jsonl"
        self._total_steps = total_steps
        self._step, self._time = first_step, time.perf_counter()
        # Compilation, k-means and pictures make single windows slow; the median forgets them.
        self._speeds: deque[float] = deque(maxlen=9)
        # Lines after the checkpoint that the run resumed from will be written again.
        kept = [line for line in self._lines() if json.loads(line)["step"] <= first_step]
        write_atomically(self._path, "".join(line + "\n" for line in kept).encode())
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def _lines(self) -> list[str]:
        """The whole lines of the log; a full disk may have cut the last one short."""
        if not self._path.exists():
            return []
        lines = self._path.read_text().split("\n")[:-1]
        return [line for line in lines if line.endswith("}")]

    def write(self, step: int, metrics: Mapping[str, float], batch_size: int) -> None:
        """One line for `step`; its speed is the mean since the line before."""
        now = time.perf_counter()
        speed = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        self._speeds.append(speed)
        record = {"step": step, **metrics, "images_per_second": speed * batch_size}
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if name != "step":
                self._events.add_scalar(f"train/{name}", value, step)
        eta = format_duration((self._total_steps - step) / statistics.median(self._speeds))
        print(
            f"step {step:>6}/{self._total_steps}  loss {metrics['loss']:.4f}  "
            f"PSNR {metrics['psnr']:5.2f} dB  {speed * batch_size:6.1f} images/s  ETA {eta}",
            flush=True,
        )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._events.close()
