"""A few figures of the averaged weights during training, which show early what goes wrong."""

import contextlib
import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from pivq_jax.common.errors import InputError
from pivq_jax.common.params import Params
from pivq_jax.common.pictures import grid, reconstruction_grid
from pivq_jax.common.psnr import psnr
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset
from pivq_jax.evaluation.features import FeatureExtractor, feature_extractor
from pivq_jax.evaluation.frechet import frechet_distance
from pivq_jax.evaluation.prdc import compare_features
from pivq_jax.evaluation.reconstruction import mean_lpips
from pivq_jax.evaluation.session import Session, alex_weights
from pivq_jax.inference import TrainedModel
from pivq_jax.sampling import capacity

IMAGES = 200  # most validation images, and as many samples: seconds on a CPU
PARENT_IMAGES = 1_000  # most training images whose codes are recombined
SHOWN = 16


class Evaluator:
    """A `training.loop.Evaluator` that leaves out what images, small or few, do not allow."""

    def __init__(self, config: Config) -> None:
        pool = min(PARENT_IMAGES, config.evaluate.images or PARENT_IMAGES)
        # Distances of 2,048 features take many seconds: most evaluations would be skipped.
        path = config.evaluate.features_path if config.evaluate.features == "vgg" else ""
        settings = dataclasses.replace(
            config.evaluate,
            samples=min(IMAGES, config.evaluate.samples, pool),
            images=pool,
            features="vgg",
            features_path=path,
        )
        self._config = dataclasses.replace(config, evaluate=settings)
        self._real: np.ndarray | None = None  # features of the validation images

    def __call__(
        self,
        dataset: Dataset,
        mesh: Mesh,
        step: int,
        params: Params | None,
        reconstruct: Callable[[int], tuple[np.ndarray, np.ndarray]],
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Returns figures by their names in `metrics.json`, and pictures."""
        settings = self._config.evaluate
        batch_size = settings.batch_size
        originals, reconstructions = reconstruct(settings.samples)
        figures = {"psnr": float(np.mean(np.asarray(psnr(reconstructions, originals, 255.0))))}
        pairs = reconstruction_grid(originals[:SHOWN], reconstructions[:SHOWN])
        pictures = {"reconstructions": pairs}
        with contextlib.suppress(InputError):
            parts = range(batch_size, len(originals), batch_size)
            split = (np.split(images, parts) for images in (originals, reconstructions))
            batches = zip(*split, strict=True)
            figures["lpips"] = mean_lpips(batches, batch_size, alex_weights(self._config.loss))
        with contextlib.suppress(InputError):
            if self._real is None:
                self._real = self._extractor.extract(originals, quiet=True)
            rebuilt = self._extractor.extract(reconstructions, quiet=True)
            figures["rfid"] = frechet_distance(self._real, rebuilt)
        if params is None:
            return figures, pictures
        model = TrainedModel(self._config, mesh, params, step, {})
        session = Session(model, dataset, Path())
        with contextlib.suppress(InputError):
            images = session.recombined(settings.samples, jax.random.key(session.seed)).images
            pictures["samples"] = grid(images[: 2 * SHOWN], 8)
            if self._real is not None:
                fake = self._extractor.extract(images[: len(originals)], quiet=True)
                compared = compare_features(self._real, fake, settings.neighbours)
                figures |= {name: compared[name] for name in ("fid", "density", "coverage")}
        figures["codes_used"] = capacity(model.space, session.pool_codes)["codes_used"]
        return figures, pictures

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        settings = self._config.evaluate
        return feature_extractor(settings.features, settings.features_path, settings.batch_size)
