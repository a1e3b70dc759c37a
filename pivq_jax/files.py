"""Files that are never half-written."""

import json
import os
from pathlib import Path
from typing import Any, cast


def as_path(name: str) -> Path:
    """A local path, or one in remote storage such as gs://bucket/run, which has its methods."""
    if "://" not in name:
        return Path(name).expanduser()
    from etils import epath

    return cast(Path, epath.Path(name))


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, written atomically; NaN and infinity are refused."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
