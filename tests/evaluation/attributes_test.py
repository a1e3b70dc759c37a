"""The figures of probes and DCI in the report."""

import json

import numpy as np
import pytest

from pivq_jax.evaluation.attributes import attribute_metrics
from pivq_jax.inference import Encoded
from pivq_jax.sampling import CodeSpace

FACTORS = {"shade": ("dark", "light"), "odd": ("no", "yes", "very"), "same": ("a", "b")}


def split(images, seed, kind):
    """8 codes of 32: the first tells `shade`, a latent tells `odd`, `same` is always a."""
    rng = np.random.default_rng(seed)
    shade, odd = rng.integers(0, 2, images), rng.integers(0, 3, images)
    codes = np.stack([rng.permutation(np.arange(2, 32))[:8] for _ in range(images)])
    codes[:, 0] = shade
    latents = rng.normal(size=(images, 8, 4)).astype(np.float32)
    latents[:, 3, 1] = 0.01 * odd
    codes = codes if kind == "positional" else np.sort(codes, 1)
    return Encoded(codes.astype(np.int32), latents, np.stack([shade, odd, 0 * odd], axis=1))


@pytest.mark.parametrize("kind", ["matching", "positional"])
def test_metrics_hold_probes_and_dci(kind):
    splits = [split(images, seed, kind) for seed, images in enumerate((400, 100, 150))]
    metrics = attribute_metrics(*splits, FACTORS, CodeSpace(8, 32, kind))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert (metrics["probe_train_images"], metrics["probe_test_images"]) == (400, 150)
    assert metrics["attributes_left_out"] == {"same": "every training image has same = a"}
    shade, odd = metrics["attributes"]["shade"], metrics["attributes"]["odd"]
    assert shade["codes"] == 1.0 and shade["classes"] == 2 and shade["majority"] == 0.5
    assert abs(shade["latents"] - 0.5) < 4 * shade["latents_error"]
    assert odd["latents"] == 1.0 and odd["majority"] == pytest.approx(1 / 3)
    assert abs(odd["codes"] - 1 / 3) < 4 * odd["codes_error"]
    assert set(metrics["dci"]) == {"codes", "latents"}
    assert metrics["dci"]["codes"]["informativeness"] == pytest.approx(
        (shade["codes"] + odd["codes"]) / 2
    )
    assert 0 < metrics["dci"]["latents"]["completeness"] < 1


def test_one_attribute_or_latent_has_no_dci():
    splits = [split(100, seed, "matching") for seed in range(3)]
    alone = [part._replace(labels=part.labels[:, :1]) for part in splits]
    metrics = attribute_metrics(*alone, {"shade": "dl"}, CodeSpace(8, 32))
    assert metrics["dci"] == {} and set(metrics["attributes"]) == {"shade"}
    alone = [x._replace(codes=x.codes[:, :1], latents=x.latents[:, 3:4]) for x in splits]
    metrics = attribute_metrics(*alone, FACTORS, CodeSpace(1, 32))
    assert metrics["dci"] == {} and metrics["attributes"]["odd"]["latents"] == 1.0
