"""Random-access sources: `source[i]` is `{"image": uint8 [H, W, 3], factor: int, ...}`."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import damage_as_input_error, decode_image
from pivq_jax.data.records import features_of

Example = dict[str, Any]

# Splits up to this size remain decoded in memory once read: 174,000 images of 64 x 64 pixels, more
# than the training split of CelebA. Decoding takes 0.15 ms per image, and a fast accelerator would
# wait for it.
_MEMORY_LIMIT = 2**31

# Shards have 1,024 images each, and a common limit of open files is 1,024, of macOS 256. macOS may
# refuse the first of these numbers, and grants the second.
_OPEN_FILES = (2**16, 10_240)


class Source(Protocol):
    """Random access to labelled images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example:
        """Returns `image`, uint8 [H, W, 3], and each factor as an int; do not modify the array."""
        ...


def _allow_open_files() -> None:
    """Raises the limit of open files, if it may: each shard of a split stays open once read."""
    import resource  # not on Windows, nor is array_record

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in _OPEN_FILES:
        target = limit if most == resource.RLIM_INFINITY else min(most, limit)
        if now == resource.RLIM_INFINITY or now >= target:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, most))
            return


class RecordSource:
    """A split of a data set in files of tensorflow-datasets: an image feature, and labels.

    Images remain decoded in memory once read, if the split fits into `memory_limit` bytes, but not
    in worker processes, each of which would need it.
    """

    def __init__(
        self,
        builder: Any,
        split: str,
        image_size: int,
        factors: Sequence[str] = (),
        image: str = "image",
        remedy: str = "delete that directory and run the command again",
        memory_limit: int = _MEMORY_LIMIT,
    ) -> None:
        import tensorflow_datasets as tfds

        _allow_open_files()
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self.records = builder.as_data_source(split, deserialize_method=raw)
        self._directory, self._split, self._size = Path(builder.data_dir), split, image_size
        self._factors, self._image, self._remedy = factors, image, remedy
        self._kept: list[Example | None] | None = None
        if len(self) * 3 * image_size**2 <= memory_limit:
            self._kept = [None] * len(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        # Two threads may read the same image; both results are equal.
        example = self._kept[index] if self._kept else None
        if example is None:
            example = self._decode(index)
            if self._kept:
                example["image"].setflags(write=False)
                self._kept[index] = example
        return dict(example)

    def _decode(self, index: int) -> Example:
        name = f"{index} of {self._split}"
        damaged = f"the prepared data in {self._directory} is damaged"
        with damage_as_input_error(damaged, self._remedy):
            features = features_of(bytes(self.records[index]))
            labels = {factor: features[factor].int64_list.value[0] for factor in self._factors}
            file = io.BytesIO(features[self._image].bytes_list.value[0])
        if missing := [factor for factor, value in labels.items() if value < 0]:
            raise InputError(
                f"image {name} has no value of {missing[0]!r}, but others have: delete"
                f" {missing[0]!r} from {self._directory / 'features.json'}, and it is ignored"
            )
        try:
            return {"image": decode_image(file, self._size, name=name), **labels}
        except InputError as error:
            raise InputError(f"{damaged} ({error}): {self._remedy}") from error


class Subset:
    """Some images of a source."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Example:
        return self._source[int(self._indices[index])]


class Mirrored:
    """All images of a source, flipped horizontally."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Example:
        example = self._source[index]
        return {**example, "image": np.ascontiguousarray(example["image"][:, ::-1])}


def first_images(source: Source, count: int) -> Subset:
    """Returns the first `count` images of a source, or all if there are fewer."""
    return Subset(source, range(min(count, len(source))))


class RandomSource:
    """Noise images for quick trials: those with odd indices, of `shade` 1, are light."""

    def __init__(self, image_size: int, count: int, seed: int):
        self._image_size, self._count, self._seed = image_size, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        rng = np.random.default_rng((self._seed, index))
        shade = index % 2
        shape = (self._image_size, self._image_size, 3)
        image = rng.integers(0, 128, shape, np.uint8) + np.uint8(128 * shade)
        return {"image": image, "shade": shade}
