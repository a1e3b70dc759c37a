"""Labelled splits through a real encoder, and the figures of the report."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import RandomSource, first_images
from pivq_jax.evaluation.attributes import attribute_metrics
from pivq_jax.inference import Encoded, encode_labelled
from pivq_jax.model.pivq import pivq_from_config
from pivq_jax.sampling import CodeSpace
from tests.conftest import STAGES
from tests.parameters import make_model

FACTORS = {"shade": ("dark", "light"), "odd": ("no", "yes", "very"), "same": ("a", "b")}


@pytest.fixture(scope="module", params=["matching", "positional"])
def model(request, tiny_config):
    """A tiny model with random weights."""
    return make_model(tiny_config.with_fields({"quantizer.kind": request.param}), scale=0.2)


def test_codes_latents_and_labels_of_a_split(model):
    source = RandomSource(model.config.data.image_size, 13, seed=0)
    found = encode_labelled(model, source, ["shade"], batch_size=8)
    images = np.stack([source[i]["image"] for i in range(13)])
    encoded = [model.encode(images_to_float(part)) for part in (images[:8], images[5:])]
    np.testing.assert_array_equal(found.codes, np.concatenate([encoded[0], encoded[1][3:]]))
    assert found.latents.shape == (13, 8, 8) and found.labels.shape == (13, 1)
    np.testing.assert_array_equal(found.labels[:, 0], np.arange(13) % 2)
    distances = np.square(found.latents[:, :, None] - np.asarray(model.codebook)).sum(-1)
    if model.space.ordered:
        np.testing.assert_array_equal(found.codes, distances.argmin(-1))
    first = encode_labelled(model, first_images(source, 5), ["shade"], batch_size=8)
    np.testing.assert_array_equal(first.codes, found.codes[:5])
    without = encode_labelled(model, source, ["shade"], batch_size=8, latents=False)
    np.testing.assert_array_equal(without.codes, found.codes)
    np.testing.assert_array_equal(without.labels, found.labels)
    assert without.latents.shape == (13, 0, 8)
    with pytest.raises(InputError, match="no label hat"):
        encode_labelled(model, source, ["shade", "hat"], batch_size=8)


def test_latents_of_several_stages_are_those_of_the_encoder(tiny_config):
    model = make_model(tiny_config.with_fields(STAGES))
    source = RandomSource(model.config.data.image_size, 5, seed=0)
    images = images_to_float(np.stack([source[i]["image"] for i in range(5)]))
    found = encode_labelled(model, source, ["shade"], batch_size=4)
    network = pivq_from_config(model.config)
    latents_of = jax.jit(partial(network.apply, method="latents"))
    expected = latents_of({"params": model.params}, images)
    assert found.codes.shape == (5, 32) and found.latents.shape == (5, 16, 4)
    np.testing.assert_allclose(found.latents, expected, atol=1e-5)


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
