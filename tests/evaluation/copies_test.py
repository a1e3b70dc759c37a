"""The copied share, against a loop over patches, images and training images in float64."""

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import copies
from pivq_jax.evaluation.copies import copied_share, mean_share


def textured(count: int, seed: int, size: int = 24, channels: int = 3) -> np.ndarray:
    """Images of few frequencies, of which many are alike; some patches are nearly flat."""
    rng = np.random.default_rng(seed)
    at = np.arange(size) / 8
    waves = np.sin(2 * np.pi * (at[:, None] + at * rng.integers(0, 2)))
    strength = rng.uniform(10, 70, (count, 1, 1, channels)) * rng.choice([-1, 1], (count, 1, 1, 1))
    noise = rng.normal(0, 6, (count, size, size, channels))
    images = rng.uniform(80, 170, (count, 1, 1, channels)) + strength * waves[..., None] + noise
    return np.clip(images, 0, 255).astype(np.uint8)


def naive(images: np.ndarray, training: np.ndarray) -> list[float]:
    """Least squares by NumPy's solver, one patch after another."""
    shares = []
    for image in images.astype(np.float64):
        counts, textured_patches = np.zeros(len(training)), 0
        for top in range(0, image.shape[0] - 7, 8):
            for left in range(0, image.shape[1] - 7, 8):
                patch = image[top : top + 8, left : left + 8].reshape(64, -1)
                if np.mean((patch - patch.mean(0)) ** 2) < 4 * 255**2 / 1000:
                    continue
                textured_patches += 1
                for i, other in enumerate(training.astype(np.float64)):
                    given = other[top : top + 8, left : left + 8].reshape(64, -1)
                    channels = given.shape[1]
                    offsets = np.kron(np.eye(channels), np.ones((64, 1)))
                    columns = np.column_stack([given.T.reshape(-1, 1), offsets])
                    wanted = patch.T.reshape(-1)
                    fitted = np.linalg.lstsq(columns, wanted, rcond=None)[0]
                    error = np.mean((columns @ fitted - wanted) ** 2)
                    counts[i] += fitted[0] >= 0 and error <= 255**2 / 1000  # 30 dB
        shares.append(counts.max() / textured_patches if textured_patches else np.nan)
    return shares


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_a_loop_also_in_batches(channels, monkeypatch):
    images, training = textured(12, 1, 27, channels), textured(18, 1, 27, channels)[10:]
    for i, other in enumerate(training):  # some have the upper part of an image
        other[: 8 * (i % 4)] = images[i, : 8 * (i % 4)]
    training = np.concatenate([training, textured(4, 2, 27, channels)])
    found = copied_share(images, np.split(training, [5]))
    np.testing.assert_allclose(found, naive(images, training))
    monkeypatch.setattr(copies, "AT_ONCE", 4)
    np.testing.assert_array_equal(copied_share(images, np.split(training, [3, 7])), found)
    assert len(set(found[np.isfinite(found)].tolist())) > 2  # not all alike


def test_a_copy_has_1_a_splice_of_two_a_half_and_noise_0():
    rng, size = np.random.default_rng(0), 64
    training = rng.integers(0, 256, (20, size, size, 3), np.uint8)
    splice = training[3].copy()
    splice[:, size // 2 :] = training[8][:, size // 2 :]
    paler = (0.5 * training[5] + [20, 40, 60]).astype(np.uint8)
    noise = rng.integers(0, 256, (size, size, 3), np.uint8)
    negative = 255 - training[5]
    images = np.stack([training[19], paler, splice, noise, negative])
    np.testing.assert_array_equal(copied_share(images, [training]), [1, 1, 0.5, 0, 0])


def test_flat_patches_count_for_neither_side():
    """A flat patch would be explained by any other."""
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
    half_flat = training[0].copy()
    half_flat[:8] = [90, 120, 200]
    images = np.stack([half_flat, np.full((16, 16, 3), 128, np.uint8)])
    shares = copied_share(images, [training])
    np.testing.assert_array_equal(shares, [1, np.nan])
    assert mean_share(shares) == 1 and mean_share(shares[1:]) is None


@pytest.mark.parametrize(
    "size, training, message",
    [
        (4, [np.zeros((1, 4, 4, 3), np.uint8)], "8x8"),
        (8, [], "no training images"),
        (8, [np.zeros((1, 16, 16, 3), np.uint8)], "training images of"),
    ],
)
def test_what_cannot_be_compared_is_refused(size, training, message):
    with pytest.raises(InputError, match=message):
        copied_share(np.zeros((2, size, size, 3), np.uint8), training)
