"""What is said of reconstructions."""

from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.inference import describe_psnr


@pytest.mark.parametrize(
    "own, psnrs, expected",
    [
        (None, [30.0, 32.0], "mean PSNR 31.0 dB"),
        ("high", [30.0, 32.0], "mean PSNR 31.0 dB"),
        (10**400, [30.0, 32.0], "mean PSNR 31.0 dB"),
        (36.9, [30.0, 32.0], "mean PSNR 31.0 dB; 36.9 dB on the test images of the model"),
        (30.0, [50.0], "mean PSNR 50.0 dB; 30.0 dB on the test images of the model"),
    ],
)
def test_the_mean_stands_beside_that_of_the_model(own, psnrs, expected):
    model = SimpleNamespace(metrics={} if own is None else {"psnr": own})
    assert describe_psnr(model, np.array(psnrs, np.float32)) == [expected]


def test_images_that_the_model_does_not_know_are_warned_of():
    model = SimpleNamespace(metrics={"psnr": 37.1})
    line, warning = describe_psnr(model, np.array([30.0, 32.0]))
    assert line.startswith("mean PSNR 31.0 dB; 37.1 dB")
    assert warning.startswith("warning: the model does not know such images")
