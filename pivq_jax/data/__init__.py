"""Data sets and the input pipeline. `load_dataset` is the door; heavy imports wait until needed."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pivq_jax.data.sources import RandomSource, RecordSource, Source
from pivq_jax.errors import InputError

# Data sets of real faces, prepared from a directory of their aligned images.
_ALIGNED = {
    "celeba": "img_align_celeba",
    "celeba_hq": "CelebA-HQ's images",
    "ffhq": "FFHQ's thumbnails128x128 or images1024x1024",
}
NAMES = ("toon_faces", "image_folder", "random", *_ALIGNED)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of square RGB images in three splits.

    Attributes:
      name: as given to `load_dataset`.
      image_size: height and width in pixels.
      train, validation, test: random access; `split[i]` is a dict of `image` uint8 [H, W, 3] and
        each factor as an int.
      factors: the names of the values of each labelled factor; empty where there are no labels.
    """

    name: str
    image_size: int
    train: Source
    validation: Source
    test: Source
    factors: dict[str, tuple[str, ...]]


def load_dataset(
    name: str,
    *,
    image_size: int,
    path: str | os.PathLike[str] = "",
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a data set, preparing it first if it is not prepared yet.

    Args:
      name: one of `NAMES`. `toon_faces` is drawn on this machine; `image_folder` reads any
        directory tree of images; `random` is noise for trying out; `celeba`, `celeba_hq` and `ffhq`
        read a directory of their aligned images.
      image_size: height and width in pixels.
      path: the directory of images, for the data sets that have one.
      data_dir: where prepared data is kept; $PIVQ_DATA_DIR or ~/.cache/pivq_jax/data by default.

    Raises:
      InputError: unknown name, missing path, no readable images there, the packages that draw
        `toon_faces` missing or drawing other faces, or damaged prepared data.
    """
    if name == "random":
        return Dataset(
            name,
            image_size,
            train=RandomSource(image_size, 512, seed=0),
            validation=RandomSource(image_size, 128, seed=1),
            test=RandomSource(image_size, 128, seed=2),
            factors=dict(RandomSource.factors),
        )
    if name == "toon_faces":
        return load_toon_faces(image_size, data_dir=data_dir)
    if name not in NAMES:
        raise InputError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    if not os.fspath(path):
        what = _ALIGNED.get(name, "your images")
        raise InputError(
            f"{name} needs the directory that holds {what}: give it as --config.data.path=DIR"
        )
    from pivq_jax.data import image_folder

    config = image_folder.make_config(path, image_size)
    return _prepared(name, image_size, image_folder.ImageFolder, config, data_dir, {})


def load_toon_faces(
    image_size: int,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    sizes: dict[str, int] | None = None,
) -> Dataset:
    """Loads `toon_faces`; `sizes` shrinks splits, e.g. {'train': 100}, to their first images."""
    from pivq_jax.data import toon_faces, toon_render

    config = toon_faces.make_config(image_size, sizes)
    factors = dict(toon_render.FACTORS)
    return _prepared("toon_faces", image_size, toon_faces.ToonFaces, config, data_dir, factors)


def _prepared(
    name: str,
    image_size: int,
    builder_class: Callable[..., Any],
    config: Any,
    data_dir: str | os.PathLike[str] | None,
    factors: dict[str, tuple[str, ...]],
) -> Dataset:
    from pivq_jax.data import preparation

    where = Path(data_dir).expanduser() if data_dir else preparation.default_data_dir()
    builder = preparation.prepare(
        lambda: builder_class(config=config, data_dir=where, file_format="array_record")
    )
    try:
        with preparation.quiet():  # the first reading would advise installing OpenCV
            splits = {s: RecordSource(builder, s) for s in ("train", "validation", "test")}
            for split in splits.values():
                split[0]
    except Exception as error:  # any type: it depends on what is missing or cut short
        reason = " ".join(str(error).split())
        raise InputError(
            f"the prepared data in {builder.data_dir} is damaged ({reason}): delete that directory "
            "and run again to prepare it anew"
        ) from error
    return Dataset(name, image_size, **splits, factors=factors)
