"""Whole splits through a real encoder, and what is said of reconstructions."""

from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import RandomSource, first_images
from pivq_jax.inference import describe_psnr, encode_labelled
from tests.parameters import make_model


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


def test_the_mean_stands_beside_that_of_the_model_which_may_not_know_such_images():
    psnrs = np.array([30.0, 32.0], np.float32)
    for metrics, expected in (
        ({}, "mean PSNR 31.0 dB"),
        ({"psnr": "high"}, "mean PSNR 31.0 dB"),
        ({"psnr": 36.9}, "mean PSNR 31.0 dB; 36.9 dB on the test images of the model"),
    ):
        assert describe_psnr(SimpleNamespace(metrics=metrics), psnrs) == [expected]
    line, warning = describe_psnr(SimpleNamespace(metrics={"psnr": 37.1}), psnrs)
    assert line.startswith("mean PSNR 31.0 dB; 37.1 dB")
    assert warning.startswith("warning: the model does not know such images")
