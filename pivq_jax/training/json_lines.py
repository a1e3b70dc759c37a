"""Files of a run with a JSON object on each line, which has the `step` that it is of."""

import json
import math
from pathlib import Path
from typing import Any

from pivq_jax.common.files import errors_named, is_remote, write_atomically

LOG = "log.jsonl"  # of the training steps
METRICS = "metrics.jsonl"  # of the evaluations during training


class JsonLines:
    """A file that grows by lines; lines after `first_step` are removed with the first new line."""

    def __init__(self, path: Path, first_step: int) -> None:
        self._path = path
        # Lines after the restored checkpoint will be written again.
        kept = read_lines(path, first_step)
        self._text = "".join(json.dumps(record) + "\n" for record in kept)
        self._written_whole = path.exists() or is_remote(path)

    def cut(self) -> None:
        """Removes the lines after `first_step` now."""
        if self._path.exists():
            self._write()

    def append(self, record: dict[str, Any]) -> None:
        """Writes one line."""
        line = json.dumps(record) + "\n"
        if self._written_whole:
            self._text += line
            self._write()
            return
        with errors_named(self._path), self._path.open("a") as file:
            file.write(line)

    def _write(self) -> None:
        write_atomically(self._path, self._text.encode())
        self._written_whole = is_remote(self._path)  # objects in remote storage cannot grow


def read_lines(path: Path, last_step: float = math.inf) -> list[dict[str, Any]]:
    """The objects up to `last_step`; damaged lines, as a full disk leaves them, are left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    records = map(_record_of, whole)
    return [record for record in records if record and float(record["step"]) <= last_step]


def _record_of(line: str) -> dict[str, Any] | None:
    """The object of a line, with a number as its `step`; None if the line is damaged."""
    try:
        record = json.loads(line)
        float(record["step"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return record
