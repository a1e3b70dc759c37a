"""Zip archives whose directory fits into memory."""

import zipfile
from typing import IO, Any, cast

# Bytes of an entry in the directory that Python reads: names and all else that may be with them.
_ENTRY = 160


def open_archive(file: IO[bytes], most: int) -> zipfile.ZipFile:
    """Opens an archive of at most so many members.

    More are a ValueError before they take memory. A damaged archive raises what `zipfile` does.
    """
    directory = _Directory(file, most)
    archive = zipfile.ZipFile(cast(IO[bytes], directory))
    archive.fp = file  # of members, all may be read
    return archive


class _Directory:
    """An archive of which `zipfile` reads the end, and then the directory as a whole."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if size > self._most * _ENTRY:
            raise ValueError(f"its directory has {size:,} bytes, too many for {self._most:,} files")
        content = self._file.read(size)
        if (members := content.count(b"PK\1\2")) > self._most:
            raise ValueError(f"it has {members:,} files, more than {self._most:,}")
        return content
