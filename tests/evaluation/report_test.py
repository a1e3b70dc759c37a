"""`metrics.json` of a trained run against figures worked out here from its codes and pictures."""

import math

import numpy as np
import pytest

KEYS = """step psnr l1 codes_used distinct_codes_per_image perplexity marginal_bits ceiling_bits
images image_size num_codes codebook_size train_seconds train_images_per_second
sample_images_per_second parameters"""


@pytest.fixture(scope="module")
def test_split(trained, commands):
    """uint8 [M, 64, 64, 3]."""
    from pivq_jax.data import load_dataset

    path = trained.arguments[1].partition("=")[2]
    source = load_dataset(
        "image_folder", image_size=64, path=path, data_dir=commands.directory / "data"
    ).test
    return np.stack([source[i]["image"] for i in range(len(source))])


def test_metrics_are_flat_and_complete(trained):
    assert set(trained.metrics) == set(KEYS.split())
    assert all(isinstance(value, int | float) for value in trained.metrics.values())


def test_metrics_of_the_run(trained, test_split):
    metrics = trained.metrics
    assert metrics["step"] == 60 and metrics["images"] == len(test_split)
    assert (metrics["image_size"], metrics["num_codes"], metrics["codebook_size"]) == (64, 32, 512)
    assert metrics["train_images_per_second"] == pytest.approx(60 * 16 / metrics["train_seconds"])
    assert metrics["sample_images_per_second"] > 0


def test_psnr_and_l1_are_means_over_the_images_of_rounded_output(
    trained, trained_model, test_split
):
    codes = trained_model.encode(test_split.astype(np.float32) / 127.5 - 1)
    decoded = np.asarray(trained_model.decode(codes), np.float64)
    rounded = np.round(np.clip((decoded + 1) * 127.5, 0, 255))
    error = rounded - test_split
    psnr = 10 * np.log10(255**2 / np.mean(error**2, axis=(1, 2, 3)))
    # A pixel that lies on a rounding border may fall to either side.
    assert trained.metrics["psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
    assert trained.metrics["l1"] == pytest.approx(np.mean(np.abs(error)) / 127.5, rel=1e-4)


def test_capacity_is_of_the_whole_test_split(trained, trained_model, test_split):
    metrics = trained.metrics
    codes = np.asarray(trained_model.encode(test_split.astype(np.float32) / 127.5 - 1))
    assert metrics["ceiling_bits"] == pytest.approx(math.log2(math.comb(512, 32)))
    shares = np.bincount(codes.ravel(), minlength=512) / len(codes)
    inner = shares[(shares > 0) & (shares < 1)]
    entropy = -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner)).sum()
    expected = min(metrics["ceiling_bits"], entropy)
    assert metrics["marginal_bits"] == pytest.approx(expected, rel=1e-3)
    assert metrics["distinct_codes_per_image"] == 32
    assert abs(metrics["codes_used"] - np.sum(shares >= 0.001)) <= 1


def test_parameters_are_those_of_the_checkpoint(trained, trained_model):
    import jax

    leaves = jax.tree.leaves(trained_model.params)
    assert trained.metrics["parameters"] == sum(int(np.prod(leaf.shape)) for leaf in leaves)
