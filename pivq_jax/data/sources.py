"""Random-access sources: `source[i]` is `{"image": uint8 [H, W, 3], factor: int, ...}`."""

import io
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pivq_jax.data.records import decode

Example = dict[str, Any]

# Splits up to this size remain decoded in memory once read: 174,000 images of 64 x 64 pixels, more
# than the training split of CelebA. Decoding takes 0.15 ms per image, and a fast accelerator would
# wait for it.
_MEMORY_LIMIT = 2**31


class Source(Protocol):
    """Random access to labelled images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example:
        """Returns `image`, uint8 [H, W, 3], and each factor as an int; do not modify the array."""
        ...


class Cached:
    """Images that remain decoded in memory once read, if the split fits into `memory_limit` bytes.

    Unpickled copies do not cache: worker processes have time to decode, and each would need the
    memory. Subclasses define `__len__` and `read`.
    """

    def __init__(self, image_size: int, memory_limit: int = _MEMORY_LIMIT) -> None:
        self._size = image_size
        self._kept: list[Example | None] | None = None
        if len(self) * 3 * image_size**2 <= memory_limit:
            self._kept = [None] * len(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Example:
        """Reads and decodes an image."""
        raise NotImplementedError

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        if self._kept is None:
            return self.read(index)
        # Two threads may read the same image; both results are equal.
        example = self._kept[index]
        if example is None:
            example = self.read(index)
            example["image"].setflags(write=False)
            self._kept[index] = example
        return dict(example)


class RecordSource(Cached):
    """A split of a prepared data set, resized on reading. Unpickled copies reopen the files."""

    def __init__(
        self,
        builder: Any,
        split: str,
        memory_limit: int = _MEMORY_LIMIT,
        image_size: int | None = None,
    ):
        from tensorflow_datasets import decode

        raw = decode.DeserializeMethod.RAW_BYTES
        self._records = builder.as_data_source(split, deserialize_method=raw)
        super().__init__(image_size or builder.info.features["image"].shape[0], memory_limit)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Example:
        """See `Cached`."""
        from PIL import Image

        png, factors = decode(self._records[index])
        image: Image.Image = Image.open(io.BytesIO(png))
        if image.size != (self._size, self._size):
            image = image.resize((self._size, self._size), Image.Resampling.LANCZOS)
        return {"image": np.array(image), **factors}


class Subset:
    """Some images of a source."""

    def __init__(self, source: Source, indices: np.ndarray | range) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._source[int(self._indices[index])]


def first_images(source: Source, count: int) -> Subset:
    """Returns the first `count` images of a source, or all if there are fewer."""
    return Subset(source, range(min(count, len(source))))


class RandomSource:
    """Noise images for quick trials; a pure function of (seed, index).

    Images with odd indices are light and the others dark, as the factor `shade` indicates.
    """

    factors: Mapping[str, tuple[str, ...]] = {"shade": ("dark", "light")}

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
