"""Files that are never half-written."""

import json
import uuid
from pathlib import Path
from typing import Any, cast

from pivq_jax.common.errors import InputError


def as_path(name: str) -> Path:
    """A local path, or one in remote storage such as gs://bucket/run, which has its methods.

    Raises:
        InputError: the kind of storage is unknown.
    """
    if "://" not in name:
        return Path(name).expanduser()
    from etils import epath

    try:
        return cast(Path, epath.Path(name))
    except KeyError as error:  # no class for this scheme
        raise InputError(f"{name}: {error} is unknown: use gs://, s3:// or a local path") from error


def local_path(name: str) -> Path:
    """A local path.

    Raises:
        InputError: it is one in remote storage.
    """
    if "://" in name:
        raise InputError(f"{name} is in remote storage: use a local path, and copy from or to it")
    return Path(name).expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, written atomically; NaN and infinity are refused."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
