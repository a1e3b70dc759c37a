"""Directory trees of aligned images as a data set: resized, cropped, split and cached."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.data import images
from pivq_jax.data.preparation import progress, usable_cores

SPLITS = ("train", "validation", "test")

# With this number of files or fewer, a split could by chance be empty or contain only corrupt
# files, so images are read before they are assigned to splits.
_FEW = 200


def assign_splits(names: Sequence[str]) -> dict[str, str]:
    """Assigns files to splits by a hash of their names: 80 % train, 10 % validation, 10 % test.

    The split of a name does not depend on other names, except in very small sets: with at least
    three names, every split gets at least one.

    Args:
        names: file names, relative to the data set.

    Returns:
        The split (`train`, `validation` or `test`) of each name.
    """
    shares = {
        name: int(hashlib.sha256(os.fsencode(name)).hexdigest()[:8], 16) % 100 for name in names
    }
    splits = {
        name: "train" if share < 80 else "validation" if share < 90 else "test"
        for name, share in shares.items()
    }
    if len(splits) >= len(SPLITS):
        for split in SPLITS:
            counts = collections.Counter(splits.values())
            if not counts[split]:
                largest = max(SPLITS, key=lambda other: counts[other])
                moved = min(
                    (n for n in splits if splits[n] == largest), key=lambda n: (shares[n], n)
                )
                splits[moved] = split
    return splits


@dataclasses.dataclass(kw_only=True)
class ImageFolderConfig(tfds.core.BuilderConfig):
    """Configuration of an `ImageFolder` builder.

    Attributes:
        root: directory of the images.
        files: paths of the images, relative to `root`.
        image_size: height and width in pixels.
    """

    root: Path = Path()
    files: tuple[str, ...] = ()
    image_size: int = 64


def make_config(path: str | os.PathLike[str], image_size: int) -> ImageFolderConfig:
    """Returns the configuration for a directory, with a name derived from its contents.

    The name depends on the absolute path, the image size, and the name, size and modification time
    of every file. If any of these change, the data is prepared again.

    Args:
        path: directory of the images.
        image_size: height and width in pixels, at least 8.

    Returns:
        An `ImageFolderConfig`.

    Raises:
        InputError: if `image_size` is below 8, the directory does not exist, or it contains no
            image.
    """
    if image_size < 8:
        raise InputError(f"image_size is {image_size}: it must be at least 8")
    root = Path(path).expanduser().resolve()
    paths = images.list_images(root)
    digest = hashlib.sha256(os.fsencode(f"{root}\n{image_size}\n"))
    for file in paths:
        stat = file.stat()
        line = f"{file.relative_to(root)}\t{stat.st_size}\t{stat.st_mtime_ns}\n"
        digest.update(os.fsencode(line))
    label = re.sub(r"[^A-Za-z0-9]+", "_", root.name).strip("_")[:40] or "images"
    return ImageFolderConfig(
        name=f"{label}_{image_size}px_{digest.hexdigest()[:16]}",
        description=f"{images.readable_name(root)} at {image_size} pixels",
        root=root,
        files=tuple(file.relative_to(root).as_posix() for file in paths),
        image_size=image_size,
    )


class ImageFolder(tfds.core.GeneratorBasedBuilder):
    """Builder for a directory of images; works without TensorFlow.

    Files that cannot be read are logged and skipped.
    """

    name = "image_folder"
    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded; searching for a list of checksums would need importlib_resources.
    url_infos: ClassVar[dict[str, Any]] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        image = tfds.features.Image(shape=(size, size, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"The images of {images.readable_name(self.builder_config.root)},"
            f" {size} x {size} pixels.",
            features=tfds.features.FeaturesDict({"image": image}),
            disable_shuffling=True,  # ordered by file name
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        root, names = self.builder_config.root, self.builder_config.files
        encoded: dict[str, bytes] | None = None
        if len(names) <= _FEW:
            encoded = dict(self._readable(names, "all splits"))
            if len(encoded) < len(SPLITS):
                raise InputError(
                    f"{len(encoded)} readable images in {root} ({len(names)} files): a data set "
                    "needs at least 3, one per split"
                )
            names = tuple(encoded)
        splits = assign_splits(names)
        return {
            split: self._generate_examples(split, [n for n in names if splits[n] == split], encoded)
            for split in SPLITS
        }

    def _generate_examples(
        self, split: str, names: Sequence[str], encoded: dict[str, bytes] | None
    ) -> Iterator[tuple[int, Any]]:
        if encoded is None:
            pngs = (png for _, png in self._readable(names, split))
        else:
            pngs = (encoded[name] for name in names)
        count = 0
        for count, png in enumerate(pngs, 1):
            # A file object, because tensorflow-datasets encodes arrays with TensorFlow.
            yield count - 1, {"image": io.BytesIO(png)}
        if not count:
            raise InputError(
                f"none of the {len(names)} {split} images in {self.builder_config.root} can be "
                "read: see the warnings above"
            )

    def _readable(self, names: Sequence[str], what: str) -> Iterator[tuple[str, bytes]]:
        """Yields (name, PNG file) of the images that can be read, in order; logs the others."""
        root, size = self.builder_config.root, self.builder_config.image_size

        def convert(name: str) -> tuple[str, bytes | InputError]:
            try:
                return name, images.encode_png(images.load_image(root / name, size))
            except InputError as error:
                return name, error

        skipped = 0
        label = f"{root.name} {size}px: reading {what}"
        # Threads suffice: Pillow releases the interpreter lock while decoding and resizing.
        for name, result in progress(_map(convert, names), label, len(names)):
            if isinstance(result, bytes):
                yield name, result
            else:
                skipped += 1
                logging.warning("skipped: %s", result)
        if skipped:
            logging.warning("%d of %d images of %s skipped", skipped, len(names), root)


def _map(function: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    """Like `map`, on all cores; unlike `Executor.map`, keeps only a few results in memory."""
    workers = usable_cores()
    queue = iter(items)
    pending: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as executor:
        try:
            for item in itertools.islice(queue, 4 * workers):
                pending.append(executor.submit(function, item))
            while pending:
                result = pending.popleft().result()
                for item in itertools.islice(queue, 1):
                    pending.append(executor.submit(function, item))
                yield result
        finally:
            for future in pending:
                future.cancel()
