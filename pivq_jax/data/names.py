"""Names of images that become paths below a folder that is written.

Those in a file of codes may come from anywhere, and are checked like those of a folder.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import is_image

# Characters of a name, more than most systems can write, and names in one file: in all a reader
# takes about 70 bytes a name beside the name itself.
MAX_NAME = 4_096
MAX_NAMES = 2**20

_SEPARATOR = b"\0"  # of the parts of a path here; nothing sorts before it


def check_names(names: Iterable[str]) -> None:
    """Checks that images can be stored under these names, and written below a folder.

    A name may be a path with `/` between the parts; none may be written over another, or be its
    folder.
    """
    checked: list[bytes] = []  # half the memory of text, of which there may be a million
    for name in names:
        if reason := _fault(name):
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            raise InputError(f"the name {shown!r} {reason}: give the image another name")
        if len(checked) == MAX_NAMES:
            raise InputError(
                f"there are more than {MAX_NAMES:,} names: store fewer images in one file"
            )
        checked.append(name.encode())
    # What lies in a folder follows it at once.
    files = _png_names(lambda: map(bytes.decode, checked))
    keys = sorted(file.encode().replace(b"/", _SEPARATOR) for file in files)
    for first, second in itertools.pairwise(keys):
        if first == second:
            raise InputError(
                f"two images would become {_path(first)!r}: give each image a name of its own"
            )
        if second.startswith(first + _SEPARATOR):
            raise InputError(
                f"{_path(first)!r} would become an image and the folder of {_path(second)!r}:"
                " rename either"
            )


def _path(key: bytes) -> str:
    return key.replace(_SEPARATOR, b"/").decode()


def png_names(names: Sequence[str]) -> Iterator[str]:
    """Yields the names of the PNG files of images.

    They end in `.png` instead of the ending of an image file; images that only their endings tell
    apart keep them.

    >>> list(png_names(["a.png", "below/b.jpg", "c.jpg", "c.webp", "d"]))
    ['a.png', 'below/b.png', 'c.jpg.png', 'c.webp.png', 'd.png']
    """
    return _png_names(lambda: iter(names))


def _png_names(each: Callable[[], Iterator[str]]) -> Iterator[str]:
    in_order = sorted(_stem(name).encode() for name in each())
    alike = {first for first, second in itertools.pairwise(in_order) if first == second}
    del in_order
    for name in each():
        stem = _stem(name)
        kept = name if stem.encode() in alike else stem
        yield name if name.lower().endswith(".png") else f"{kept}.png"


def _stem(name: str) -> str:
    """A name without the ending of an image file."""
    return os.path.splitext(name)[0] if is_image(name) else name


def _fault(name: str) -> str:
    """What is wrong with a name; empty if nothing is."""
    if len(name) > MAX_NAME:
        return f"has {len(name):,} characters, more than {MAX_NAME:,}"
    parts = name.split("/")
    if not name:
        return "is empty"
    if "\0" in name:
        return "contains NUL"
    if any(part in ("", ".", "..") for part in parts):
        return "is not a path below a folder"
    # As Windows reads it, where a backslash separates and a colon follows a drive.
    if os.sep != "/" and Path(name).parts != tuple(parts):
        return "is not a path below a folder on this system"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not Unicode"
    return ""
