"""Data sets and the input pipeline. Use `load_dataset`; heavy imports are deferred until needed."""

import dataclasses
import hashlib
import importlib.util
import os
import shlex
from functools import cached_property
from pathlib import Path

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded, is_remote
from pivq_jax.data import records, toon_faces
from pivq_jax.data.builder import default_data_dir
from pivq_jax.data.image_folder import prepare_folder
from pivq_jax.data.images import (
    damage_as_input_error,
    decode_image,
    images_to_float,
    images_to_uint8,
    is_image,
    load_image,
)
from pivq_jax.data.names import MAX_NAMES, check_names, png_names
from pivq_jax.data.sources import RandomSource, RecordSource, Source, first_images
from pivq_jax.data.tfds_directory import PREPARE_AGAIN, open_directory
from pivq_jax.data.tree import list_images

__all__ = [
    "MAX_NAMES",
    "NAMES",
    "Dataset",
    "Source",
    "check_names",
    "decode_image",
    "first_images",
    "images_to_float",
    "images_to_uint8",
    "is_image",
    "list_images",
    "load_dataset",
    "load_image",
    "png_names",
]

# Data sets of real faces, prepared from their official files by `pivq_jax.data.prepare`.
OFFICIAL = ("celeba", "celeba_hq", "ffhq", "lfw")
NAMES = ("toon_faces", "image_folder", "tfds", "random", *OFFICIAL)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of square RGB images in three splits, each with random access.

    `split[i]` is a dictionary with `image`, uint8 [H, W, 3], and each factor as an int.
    """

    name: str  # the name given to `load_dataset`
    image_size: int  # height and width in pixels
    train: Source
    validation: Source
    test: Source
    factors: dict[str, tuple[str, ...]]  # names of the values of each; empty without labels

    def first(self, count: int) -> "Dataset":
        """Returns the data set of the first `count` images of each split, or all if fewer."""
        return dataclasses.replace(
            self,
            train=first_images(self.train, count),
            validation=first_images(self.validation, count),
            test=first_images(self.test, count),
        )

    @cached_property
    def identity(self) -> str:
        """Description that differs for different images or labels, however they are stored.

        It is computed from the number of images in each split and the content of up to 256 images
        per split.
        """
        splits = {"training": self.train, "validation": self.validation, "test": self.test}
        digest = hashlib.sha256()
        for split in splits.values():
            for index in np.unique(np.linspace(0, len(split) - 1, 256).astype(int)):
                example = split[int(index)]
                digest.update(np.ascontiguousarray(example["image"]).tobytes())
                digest.update(repr([int(example[name]) for name in self.factors]).encode())
        counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
        return f"{counts} images, digest {digest.hexdigest()[:16]}"


def load_dataset(
    name: str,
    *,
    image_size: int,
    path: str | os.PathLike[str] = "",
    data_dir: str | os.PathLike[str] | None = None,
    group: str = "",
) -> Dataset:
    """Loads a data set, see docs/data.md.

    `toon_faces` and the images of a folder are prepared on first use; the official data sets must
    first be prepared with `python -m pivq_jax.data.prepare`. If the data is not prepared at this
    image size but at a larger one, images are resized when they are read.

    Args:
        name: one of `NAMES`. `toon_faces` is drawn on this machine; `image_folder` reads any
            directory tree of images; `tfds` reads any data set that tensorflow-datasets has
            prepared; `random` is noise for quick trials; `celeba`, `celeba_hq`, `ffhq` and `lfw`
            are the official data sets.
        image_size: height and width in pixels.
        path: directory of prepared data, local or remote. For `image_folder` it may be the
            directory of the images; for `tfds` it is that of the data set. Default: `data_dir`.
        data_dir: directory for data that is prepared on first use or copied from a remote
            directory; defaults to $PIVQ_DATA_DIR or ~/.cache/pivq_jax/data.
        group: for `image_folder`, a regular expression for the path of an image without its suffix:
            images for which its first pair of parentheses matches equal text are in one split.

    Returns:
        A `Dataset` whose images are uint8 [image_size, image_size, 3].

    Raises:
        InputError: if the data is not there, not prepared, damaged or prepared with another group,
            an argument is invalid, or packages are missing; the message says what to do.
    """
    if name not in NAMES:
        raise InputError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    if image_size < 1:
        raise InputError(f"image_size is {image_size}: it must be at least 1")
    if name == "random":
        return Dataset(
            name,
            image_size,
            train=RandomSource(image_size, 512, seed=0),
            validation=RandomSource(image_size, 128, seed=1),
            test=RandomSource(image_size, 128, seed=2),
            factors={"shade": ("dark", "light")},
        )
    for package in ("array_record", "tensorflow_datasets"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"the data set {name} needs {package}, which is not installed:"
                " pip install array-record tensorflow-datasets"
            )
    path = os.fspath(path)
    if name == "tfds":
        if not path:
            raise InputError("tfds needs the directory of a data set: give --config.data.path=DIR")
        damaged = f"the prepared data in {path} is damaged"
        with damage_as_input_error(damaged, PREPARE_AGAIN):
            splits, factors = open_directory(path, image_size)
            for split in splits.values():
                split[0]
        return Dataset(name, image_size, **splits, factors=factors)
    cache = expanded(data_dir or default_data_dir())
    if name == "toon_faces":
        return _open_prepared(name, image_size, toon_faces.prepare_faces(image_size, cache))
    if is_remote(path):
        directory = records.fetch(path, name, image_size, cache)
    else:
        directory = records.find_directory(expanded(path or cache), name, image_size)
    if directory is None and name == "image_folder" and not is_remote(path):
        if not path:
            raise InputError(
                "image_folder needs the directory that holds your images: give it as"
                " --config.data.path=DIR"
            )
        if records.prepared_sizes(expanded(path), name):
            raise InputError(
                f"{path} was prepared at smaller sizes than {image_size} pixels: prepare the images"
                f" again with --size={image_size}, or set --config.data.image_size"
            )
        directory = prepare_folder(path, image_size, cache, group)
    if directory is None:
        output = f" --output={shlex.quote(path)}" if path else ""
        raise InputError(
            f"{name} is not prepared at {image_size} pixels in {path or cache}: run"
            f" `python -m pivq_jax.data.prepare --dataset={name} --source=DIR --size={image_size}"
            f"{output}`, where DIR holds the official files (--help says which), or name the"
            " --output of an earlier run: --config.data.path=DIR; images of your own, or of another"
            " size, are --config.data.name=image_folder"
        )
    return _open_prepared(name, image_size, directory, group)


def _open_prepared(name: str, image_size: int, directory: Path, group: str = "") -> Dataset:
    import tensorflow_datasets as tfds

    manifest = records.read_manifest(directory)
    used = manifest.get("group", "")
    if name == "image_folder" and group and used != group:
        raise InputError(
            f"data.group is {group!r}, but {directory} was prepared with"
            f" {f'--group={used!r}' if used else 'no --group'}: prepare it again with that"
            " --group or, for a new run, set --config.data.group=''"
        )
    damaged = f"the prepared data in {directory} is damaged"
    with damage_as_input_error(damaged, "delete that directory and run the command again"):
        factors = {factor: tuple(values) for factor, values in manifest["factors"].items()}
        builder = tfds.builder_from_directory(directory)
        splits = {s: RecordSource(builder, s, image_size, [*factors]) for s in builder.info.splits}
        for split in splits.values():
            split[0]
    splits.setdefault("test", splits["validation"])  # FFHQ has no test split
    return Dataset(name, image_size, **splits, factors=factors)
