"""Sources in the official layouts, one of each, that tests must not change."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data import official

SPLITS = ("train", "validation", "test")

# name -> (maker, number of images)
SOURCES: dict[str, tuple[Callable[..., Path], int]] = {
    "celeba": (official.make_celeba, 48),
    "celeba_hq": (official.make_celeba_hq, 24),
    "ffhq": (official.make_ffhq, 36),
    "lfw": (official.make_lfw, 48),
    "image_folder": (official.make_image_folder, 48),
}


@pytest.fixture(scope="session")
def make_source(faces: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a new source of a data set, with `count` images."""

    def make(name: str, count: int | None = None, **options: bool) -> Path:
        maker, usual = SOURCES[name]
        root = tmp_path_factory.mktemp("source")
        return maker(root / name, faces, count or usual, **options)

    return make


@pytest.fixture(scope="session")
def sources(make_source: Callable[..., Path]) -> dict[str, Path]:
    """A source of each data set; do not change them."""
    return {name: make_source(name) for name in SOURCES}


def prepare_arguments(name: str, source: Path, output: Path) -> list[str]:
    """Of the command, for a source made here."""
    arguments = [f"--dataset={name}", f"--source={source}", f"--output={output}"]
    if name == "image_folder":
        arguments.append(f"--attributes={source.parent / 'labels.csv'}")
    return [*arguments, "--size=32"]


def process_children(pid: int) -> list[int]:
    """The process ids of the children of a running process, whichever thread started them."""
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
            children += map(int, file.read_text().split())
    return children


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a tree."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def examples(source):
    """All images of a split."""
    return [source[i] for i in range(len(source))]
