"""Names of images in a file of codes, which become paths below the folder that is written.

A file may come from anywhere, so its names are checked like those of a folder that is compressed.
"""

from collections.abc import Iterable
from pathlib import Path

from pivq_jax.common.errors import InputError

# Of one name in characters, more than most systems can write; and of all folders together, with
# what Python takes for each: folders of folders are many more characters than the names themselves.
MAX_NAME = 4_096
_MAX_FOLDERS = 2**26
_FOLDER = 64


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Checks that images can be stored under these names, and written below a folder.

    Args:
        names: names of images, or paths relative to a folder with `/` between the parts.

    Returns:
        The names.

    Raises:
        InputError: if a name is empty, longer than `MAX_NAME`, absolute, leads out of the folder,
            contains an empty part, NUL or what is not Unicode, occurs twice, or would be written
            over another one; or if there are too many folders within folders.
    """
    seen: dict[str, str] = {}  # by what is written
    folders: dict[str, str] = {}
    held = 0
    for name in names:
        if reason := _fault(name):
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            raise InputError(f"the name {shown!r} {reason}: give the image another name")
        target = png_name(name)
        if other := seen.get(target):
            what = "occurs twice" if other == name else f"and {other!r} would become one file"
            raise InputError(f"the name {name!r} {what}: give each image a name of its own")
        seen[target] = name
        folder = target.rpartition("/")[0]
        while folder and folder not in folders:
            folders[folder] = name
            held += len(folder) + _FOLDER
            folder = folder.rpartition("/")[0]
        if held > _MAX_FOLDERS:
            raise InputError(
                f"the {len(seen):,} names up to {name[:40]!r} lie in {len(folders):,} folders, too"
                " many within each other: store fewer images in one file, or in fewer folders"
            )
    if clash := next((target for target in seen if target in folders), None):
        raise InputError(
            f"the name {seen[clash]!r} is also the folder of {folders[clash]!r}: rename either"
        )
    return tuple(seen.values())


def png_name(name: str) -> str:
    """Returns the name of the PNG file of an image: a name that ends otherwise gets `.png` added.

    Args:
        name: name of the image.

    >>> png_name("a.png"), png_name("below/a.jpg")
    ('a.png', 'below/a.jpg.png')
    """
    return name if name.lower().endswith(".png") else f"{name}.png"


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
    # As this system reads it: on Windows, a backslash separates and a colon follows a drive.
    if Path(name).parts != tuple(parts):
        return "is not a path below a folder on this system"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not Unicode"
    return ""
