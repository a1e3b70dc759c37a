"""Files of a run with a JSON object on each line; each object has the `step` it belongs to."""

import functools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from absl import logging

from pivq_jax.common.files import (
    ignore_bucket_errors,
    is_remote,
    name_file_in_errors,
    write_atomically,
)

LOG = "log.jsonl"  # of the training steps
METRICS = "metrics.jsonl"  # of the evaluations during training
UPLOADED_EVERY = 60.0  # seconds, of a file in a bucket that is not flushed


class JsonLines:
    """A file that grows by lines; lines after `first_step` are removed with the first new line."""

    def __init__(self, path: Path, first_step: int) -> None:
        self._path = path
        # Lines after the restored checkpoint will be written again.
        kept = read_lines(path, first_step)
        self._text = "".join(json.dumps(record) + "\n" for record in kept)
        self._grows = not path.exists() and not is_remote(path)
        self._waits = False  # whether there are lines that a bucket has not got yet
        self._written = -math.inf  # when it got the last

    def cut(self) -> None:
        """Removes the lines after `first_step` now."""
        if self._path.exists():
            self.append()

    def append(self, *records: dict[str, Any]) -> None:
        """Writes lines, to a bucket once a minute, as each write uploads the whole file."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        if self._grows:
            with name_file_in_errors(self._path), self._path.open("a") as file:
                file.write(lines)
        else:
            self._text += lines
            self._waits = True
            if time.monotonic() - self._written >= UPLOADED_EVERY:
                self.flush()

    def flush(self) -> None:
        """Writes what is not in a bucket yet; lines that it refuses stay for the next time."""
        if self._waits:
            self._written = time.monotonic()
            with ignore_bucket_errors(self._path):
                write_atomically(self._path, self._text.encode())
                self._waits = False
            self._grows = not is_remote(self._path)  # objects in remote storage cannot


def read_lines(path: Path, last_step: float = math.inf) -> list[dict[str, Any]]:
    """The objects up to `last_step`; damaged lines, as a full disk leaves them, are left out.

    So are those with a value that is no number, or a `step` or `seconds` that is not finite. The
    first time, a warning says how many.
    """
    if not path.exists():
        return []
    records, damaged = [], 0
    for line in path.read_bytes().decode(errors="replace").split("\n")[:-1]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not _is_whole(record):
            damaged += 1
        elif record["step"] <= last_step:
            records.append(record)
    if damaged:
        _warn(path, damaged)
    return records


def _is_whole(record: Any) -> bool:
    """Whether a value of JSON is what a line holds."""
    if not isinstance(record, dict) or any(type(x) not in (int, float) for x in record.values()):
        return False
    return "step" in record and all(
        abs(record.get(name, 0)) <= sys.float_info.max for name in ("step", "seconds")
    )


@functools.cache
def _warn(path: Path, damaged: int) -> None:
    logging.warning("%s: %s damaged line(s) left out", path, damaged)
