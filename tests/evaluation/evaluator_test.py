"""Figures during training against those worked out here and by the final evaluation's parts."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.data import load_dataset
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.evaluation import evaluator
from pivq_jax.evaluation.evaluator import Evaluator
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.frechet import frechet_distance
from pivq_jax.evaluation.prdc import compare_features
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import encode_split
from tests.parameters import with_settings


def of(shown, made):
    """Reconstructs these images."""
    return lambda count: (shown[:count], made[:count])


@pytest.fixture
def parts(tiny_model):
    """An evaluator, noise of 16 x 16 pixels, and some of it with reconstructions."""
    fields = {"evaluate.samples": 24, "evaluate.images": 60, "evaluate.features": "inception_2048"}
    config = tiny_model.config.with_fields(fields)
    data = load_dataset("random", image_size=16)
    shown = np.stack([data.validation[i]["image"] for i in range(24)])
    made = np.asarray(images_to_uint8(tiny_model.decode(tiny_model.encode(images_to_float(shown)))))
    return Evaluator(config), data, shown, made


@pytest.mark.slow
def test_figures_are_those_of_the_final_evaluation_on_fewer_images(parts, tiny_model):
    measure, data, shown, made = parts
    figures, pictures = measure(data, tiny_model.mesh, 5, tiny_model.params, of(shown, made))
    names = ["psnr", "rfid", "fid", "density", "coverage", "codes_used"]  # too small for LPIPS
    assert list(figures) == names and list(pictures) == ["reconstructions", "samples"]

    error = np.mean((shown.astype(float) - made) ** 2, axis=(1, 2, 3))
    assert figures["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / error)), rel=1e-5)
    codes = encode_split(tiny_model, [data.train[i] for i in range(60)], 20)
    assert figures["codes_used"] == len(np.unique(codes))
    model = with_settings(tiny_model, samples=24, images=60)
    samples = Session(model, data, Path()).samples.images
    extractor = feature_extractor("vgg", batch_size=20)
    real, rebuilt, fake = (extractor.extract(x) for x in (shown, made, samples))
    compared = compare_features(real, fake, k=1)
    for name in ("fid", "density", "coverage"):
        assert figures[name] == pytest.approx(compared[name], rel=1e-3, abs=1e-6), name
    rfid = frechet_distance(real, rebuilt)
    assert figures["rfid"] == pytest.approx(rfid, rel=1e-3)


def test_figures_are_of_as_many_samples_as_images_and_of_none_before_the_codebook(
    parts, tiny_model
):
    measure, data, shown, made = parts
    counts = []

    def extract(images, quiet):
        counts.append(len(images))
        return images[:, 0, :2, 0].astype(np.float32)

    measure._extractor = SimpleNamespace(extract=extract)
    figures, _ = measure(data, tiny_model.mesh, 5, tiny_model.params, of(shown[:9], made[:9]))
    assert counts == [9, 9, 9] and "fid" in figures
    figures, pictures = measure(data, None, 5, None, of(shown, made))
    assert list(figures) == ["psnr", "rfid"] and list(pictures) == ["reconstructions"]


def test_few_images_are_looked_at_by_vgg_whatever_the_final_evaluation_uses(tiny_config):
    for samples, images, features, expected in (
        (10_000, 0, "vgg", (evaluator.IMAGES, "vgg", "FILE")),
        (30, 12, "inception_2048", (12, "vgg", "")),
    ):
        fields = {"samples": samples, "images": images, "features": features}
        fields = {f"evaluate.{name}": value for name, value in fields.items()}
        config = tiny_config.with_fields(fields | {"evaluate.features_path": "FILE"})
        found = Evaluator(config)._config.evaluate
        assert (found.samples, found.features, found.features_path) == expected
