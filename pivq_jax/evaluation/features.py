"""Features of images, for metrics that compare distributions: FID, precision, recall and so on.

Such a metric means nothing without the network, its weights and the way images are prepared for it:
`FeatureExtractor.network` and `.preprocessing` say them in a line each, for the report.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float
from pivq_jax.evaluation import inception
from pivq_jax.losses.backbones import VGG16
from pivq_jax.losses.perceptual import lpips_features
from pivq_jax.losses.perceptual_weights import load_lpips

# The fourth of five: it tells damaged images from real ones best: docs/perceptual.md.
_VGG_BLOCK = 3

NETWORKS = ("vgg", *(f"inception_{dim}" for dim in inception.BLOCK_DIMS))


@dataclass(frozen=True)
class FeatureExtractor:
    """Images to feature vectors, one compiled batch at a time."""

    name: str  # as `feature_extractor` takes it
    dim: int  # numbers in a feature vector
    network: str  # one line: which network, weights and layers
    preprocessing: str  # one line: what is done to uint8 images first
    minimum_size: int  # pixels a side of the smallest images
    batch_size: int
    params: Any = field(repr=False)
    apply: Callable[[Any, jax.Array], jax.Array] = field(repr=False)  # jitted

    def extract(
        self, images: np.ndarray | Iterable[np.ndarray], total: int | None = None
    ) -> np.ndarray:
        """The features of all images, in their order.

        Args:
            images: uint8 [M, H, W, 3], or batches [m, H, W, 3] of any sizes m, one after another.
            total: number of images for the progress bar, where it cannot be seen.

        Returns:
            f32 [M, dim].

        Raises:
            InputError: no image, another shape or type, or images below `minimum_size`.
        """
        if isinstance(images, np.ndarray):
            total, images = len(images), [images]
        interval = 0.1 if sys.stderr.isatty() else 10.0
        found = []
        with tqdm(desc=self.name, total=total, unit=" images", mininterval=interval) as bar:
            for batch in _rebatch(images, self.batch_size):
                self._check(batch)
                # The last batch is filled up, so that one program serves for all.
                filled = np.resize(batch, (self.batch_size, *batch.shape[1:]))
                features = self.apply(self.params, jnp.asarray(filled))
                found.append(np.asarray(features)[: len(batch)])
                bar.update(len(batch))
        if not found:
            raise InputError("there are no images to take features of: give at least one")
        return np.concatenate(found)

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
    """Loads a network.

    Args:
        name: `vgg` needs no download; `inception_2048` is what FID is defined with;
            `inception_64`, `inception_192` and `inception_768` are its earlier blocks, averaged
            over the image, as pytorch-fid's `--dims`.
        path: of the weights, a file, for Inception also a URL, see `load_lpips` and
            `load_inception`; empty for the usual ones.
        batch_size: images at a time.

    Raises:
        InputError: an unknown name, or weights that are missing or wrong.
    """
    if name not in NETWORKS:
        raise InputError(f"features {name!r} are unknown: choose one of {', '.join(NETWORKS)}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: it must be at least 1")
    if name == "vgg":
        return FeatureExtractor(
            name=name,
            dim=VGG16.channels[_VGG_BLOCK],
            network="VGG16 (ImageNet, as in LPIPS), last ReLU of the fourth block (relu4_3), scaled"
            " to unit length at each place, averaged over the image",
            preprocessing="uint8 to [-1, 1], ImageNet mean and deviation, size as it is",
            minimum_size=VGG16.minimum_size,
            batch_size=batch_size,
            params=load_lpips("vgg", path),
            apply=jax.jit(_vgg_features, compiler_options=compiler_options()),
        )
    dim = int(name.removeprefix("inception_"))
    block = inception.BLOCK_DIMS.index(dim)

    @partial(jax.jit, compiler_options=compiler_options())
    def apply(params: Any, images: jax.Array) -> jax.Array:
        blocks: Any = inception.InceptionV3().apply({"params": params}, inception.prepare(images))
        return jnp.mean(blocks[block], (1, 2))

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


def _vgg_features(params: Any, images: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> f32 [B, 512]."""
    return jnp.mean(lpips_features(params, images_to_float(images), "vgg")[_VGG_BLOCK], (1, 2))


def _rebatch(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Batches of `size` images, and at last what is left."""
    rest: np.ndarray | None = None
    for batch in batches:
        if rest is not None and rest.shape[1:] != batch.shape[1:]:
            raise InputError(f"images of {batch.shape[1:]} after images of {rest.shape[1:]}")
        rest = batch if rest is None or not len(rest) else np.concatenate([rest, batch])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest is not None and len(rest):
        yield rest
