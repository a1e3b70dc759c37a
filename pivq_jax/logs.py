"""Where a run says what it does: console, TensorBoard and JSON lines."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from pivq_jax.files import write_atomically


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class TrainingLog:
    """Console lines with ETA, `log.jsonl` and TensorBoard events, all continued after a resume."""

    def __init__(self, workdir: Path, first_step: int, total_steps: int) -> None:
        self._path = workdir / "log.jsonl"
        self._total_steps = total_steps
        self._step, self._time = first_step, time.perf_counter()
        # Lines after the checkpoint that the run resumed from will be written again.
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= first_step]
        write_atomically(self._path, "".join(line + "\n" for line in kept).encode())
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step)

    def write(self, step: int, metrics: Mapping[str, float], batch_size: int) -> None:
        """One line for `step`; the speed is the mean since the line before."""
        now = time.perf_counter()
        speed = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        record = {"step": step, **metrics, "images_per_second": speed * batch_size}
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if name != "step":
                self._events.add_scalar(f"train/{name}", value, step)
        eta = format_duration((self._total_steps - step) / max(speed, 1e-9))
        print(
            f"step {step:>6}/{self._total_steps}  loss {metrics['loss']:.4f}  "
            f"PSNR {metrics['psnr']:5.2f} dB  {speed * batch_size:6.1f} images/s  ETA {eta}",
            flush=True,
        )

    def close(self) -> None:
        """Flush the TensorBoard events."""
        self._events.close()
