"""FID and PRDC of one pair of sets, together."""

import numpy as np
import prdc as package
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation.distribution import compare_features


def test_both_families_against_their_packages():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(60, 8)).astype(np.float32)
    fake = rng.normal(0.3, 1.1, size=(50, 8)).astype(np.float32)
    found = compare_features(real, fake, 3)
    assert list(found) == ["fid", "precision", "recall", "density", "coverage"]
    expected = package.compute_prdc(real, fake, 3)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (real, fake)]
    theirs = calculate_frechet_distance(*moments[0], *moments[1])
    assert found["fid"] == pytest.approx(theirs, rel=1e-4)


def test_too_few_images_are_refused():
    real, few = np.zeros((20, 2), np.float32), np.zeros((5, 2), np.float32)
    with pytest.raises(InputError):
        compare_features(real, few, 5)
