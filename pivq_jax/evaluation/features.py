"""Image features for metrics that compare distributions, such as FID, precision and recall.

Such a metric is meaningful only together with the network, its weights and the preprocessing of
images. `FeatureExtractor.network` and `FeatureExtractor.preprocessing` describe them for the
report.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.errors import InputError
from pivq_jax.common.output import progress_bar
from pivq_jax.data.images import images_to_float
from pivq_jax.evaluation import inception
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.losses.lpips_weights import load_lpips
from pivq_jax.losses.perceptual import lpips_features

__all__ = ["FeatureExtractor", "Features", "feature_extractor"]


class _Layer(NamedTuple):
    """A feature map of a network of LPIPS."""

    depth: int  # from 0 on
    channels: int
    name: str


# The maps that distinguish damaged images from real ones best (docs/trials.md).
_LAYERS = {
    "vgg": _Layer(3, 512, "VGG16 (ImageNet, as in LPIPS), last ReLU of the fourth block (relu4_3)"),
    "alex": _Layer(2, 384, "AlexNet (ImageNet, as in LPIPS), third ReLU"),
}
NETWORKS = (*_LAYERS, *(f"inception_{dim}" for dim in inception.BLOCK_DIMS))


class Features(NamedTuple):
    """Features of images, from one pass through a network."""

    whole: np.ndarray  # f32 [M, F], averaged over the image
    quadrants: np.ndarray  # f32 [M, 4 F], averaged over each quarter of the image, concatenated


@dataclass(frozen=True)
class FeatureExtractor:
    """Maps images to feature vectors, one compiled batch at a time."""

    name: str  # as in `feature_extractor`
    dim: int  # length of a feature vector
    network: str  # network, weights and layers, in one line
    preprocessing: str  # preprocessing of uint8 images, in one line
    minimum_size: int  # smallest height and width of images in pixels
    batch_size: int  # number of images per batch
    params: Any = field(repr=False)  # parameters of the network
    # Jitted function of `params` and uint8 images [B, H, W, 3]; returns f32 [B, 5, dim], of the
    # image and of its quarters.
    apply: Callable[[Any, jax.Array], jax.Array] = field(repr=False)

    def extract(
        self,
        images: np.ndarray | jax.Array | Iterable[np.ndarray],
        total: int | None = None,
        quiet: bool = False,
    ) -> np.ndarray:
        """Computes the features of images, f32 [M, dim], in their order; see `extract_all`."""
        return self.extract_all(images, total, quiet).whole

    def extract_all(
        self,
        images: np.ndarray | jax.Array | Iterable[np.ndarray],
        total: int | None = None,
        quiet: bool = False,
    ) -> Features:
        """Computes the features of images and of their quarters, in their order.

        Images are uint8 [M, H, W, 3], or an iterable of batches [m, H, W, 3] of any sizes m, whose
        `total` a progress bar shows unless `quiet`. Raises InputError if there is no image, a dtype
        or shape is wrong, or images are smaller than `minimum_size`.
        """
        if isinstance(images, np.ndarray | jax.Array):
            total, images = len(images), [np.asarray(images)]
        rows_left, parts = chain.from_iterable(images), []
        with progress_bar(desc=self.name, total=total, unit=" images", disable=quiet) as bar:
            while rows := list(islice(rows_left, self.batch_size)):
                batch = np.stack(rows)
                self._check(batch)
                # The last batch is padded, so that only one shape is compiled.
                filled = np.resize(batch, (self.batch_size, *batch.shape[1:]))
                features = self.apply(self.params, jnp.asarray(filled))
                parts.append(np.asarray(features)[: len(batch)])
                bar.update(len(batch))
        if not parts:
            raise InputError("there are no images to compute features of: give at least one")
        computed = np.concatenate(parts)
        # Copies: the features of the image alone would keep those of the quarters in memory.
        return Features(computed[:, 0].copy(), computed[:, 1:].reshape(len(computed), -1))

    def _check(self, batch: np.ndarray) -> None:
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
            raise InputError(
                f"features are of uint8 images [M, H, W, 3], not of {batch.dtype} {batch.shape}"
            )
        if min(batch.shape[1:3]) < self.minimum_size:
            raise InputError(
                f"images of {batch.shape[1]}x{batch.shape[2]} pixels are too small for the features"
                f" {self.name!r}: {self.minimum_size}x{self.minimum_size} at least"
            )


def feature_extractor(name: str, path: str = "", batch_size: int = 50) -> FeatureExtractor:
    """Loads a feature network, for batches of at least one image.

    `vgg` and `alex` need no download; `inception_2048` is the network that defines FID;
    `inception_64`, `inception_192` and `inception_768` are its earlier blocks, averaged over the
    image, like the option `--dims` of pytorch-fid. `path` is the file with the weights, for
    Inception also a URL (see `load_lpips` and `load_inception`), or empty for the default ones.
    Raises InputError if the name is unknown, or the weights are missing or invalid.
    """
    if name not in NETWORKS:
        raise InputError(f"features {name!r} are unknown: choose one of {', '.join(NETWORKS)}")
    if name in _LAYERS:
        return FeatureExtractor(
            name=name,
            dim=_LAYERS[name].channels,
            network=f"{_LAYERS[name].name}, scaled to unit length at each place, averaged over the"
            " image",
            preprocessing="uint8 to [-1, 1], ImageNet mean and deviation, size as it is",
            minimum_size=BACKBONES[name].minimum_size,
            batch_size=batch_size,
            params=load_lpips(name, path),
            apply=_lpips_averages(name),
        )
    dim = int(name.removeprefix("inception_"))
    block = inception.BLOCK_DIMS.index(dim)

    @partial(jax.jit, compiler_options=compiler_options())
    def apply(params: Any, images: jax.Array) -> jax.Array:
        blocks: Any = inception.InceptionV3().apply({"params": params}, inception.prepare(images))
        return _averages(blocks[block])

    return FeatureExtractor(
        name=name,
        dim=dim,
        network=f"Inception-v3 of 2015 as in pytorch-fid, block {block}, averaged over the image",
        preprocessing="uint8 / 255, bilinear to 299x299 (corners not aligned, no antialiasing),"
        " scaled to [-1, 1]",
        minimum_size=1,
        batch_size=batch_size,
        params=inception.load_inception(path),
        apply=apply,
    )


@cache
def _lpips_averages(network: str) -> Callable[[Any, jax.Array], jax.Array]:
    """Maps uint8 [B, H, W, 3] to f32 [B, 5, F]."""

    @partial(jax.jit, compiler_options=compiler_options())
    def apply(params: Any, images: jax.Array) -> jax.Array:
        maps = lpips_features(params, images_to_float(images), network)
        return _averages(maps[_LAYERS[network].depth])

    return apply


def _averages(features: jax.Array) -> jax.Array:
    """Averages a map f32 [B, H, W, F] over all of it and over its quarters: f32 [B, 5, F].

    Quarters are in reading order. Those of a map with an odd side share its middle row or column.
    """
    height, width = features.shape[1:3]
    rows, columns = (
        (slice(None, (side + 1) // 2), slice(side // 2, None)) for side in (height, width)
    )
    parts = [features, *(features[:, r, c] for r in rows for c in columns)]
    return jnp.stack([jnp.mean(part, (1, 2)) for part in parts], 1)
