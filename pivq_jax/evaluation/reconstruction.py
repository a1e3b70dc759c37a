"""How similar images and their reconstructions are: SSIM and LPIPS."""

from collections.abc import Callable, Iterable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.compilation import compiler_options
from pivq_jax.data.images import images_to_float
from pivq_jax.inference.splits import in_batches
from pivq_jax.losses.lpips_weights import load_lpips
from pivq_jax.losses.perceptual import lpips

# Window and constants of Wang et al. 2004.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
_WEIGHTS = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)


@jax.jit
def ssim(images: jax.Array, references: jax.Array) -> jax.Array:
    """Structural similarity of pairs of images, f32 [B, H, W, C] in [-1, 1]: f32 [B].

    It is the mean over channels and all windows inside the image, which has at least 11 x 11
    pixels, with intensities from 0 (Wang et al. 2004).
    """
    x, y = ((z + 1) / 2 for z in (images, references))
    mean_x, mean_y = _mean(_mean(x, 1), 2), _mean(_mean(y, 1), 2)
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * _covariance(x, y) + K2**2) / (_covariance(x, x) + _covariance(y, y) + K2**2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _shifted(x: jax.Array, axis: int) -> list[jax.Array]:
    """Returns the pixels at each position of the window, one array per position."""
    length = x.shape[axis] - WINDOW + 1
    return [jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(WINDOW)]


def _mean(x: jax.Array, axis: int) -> jax.Array:
    return sum(w * part for w, part in zip(_WEIGHTS, _shifted(x, axis)))


def _covariance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Covariance over windows: within columns plus between their means (law of total covariance).

    In float32, `E[xy] - E[x] E[y]` would lose visible differences in flat areas.
    """

    def along(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
        mean_x, mean_y = _mean(x, axis), _mean(y, axis)
        parts = zip(_WEIGHTS, _shifted(x, axis), _shifted(y, axis))
        return sum(w * (a - mean_x) * (b - mean_y) for w, a, b in parts)

    return _mean(along(x, y, 1), 2) + along(_mean(x, 1), _mean(y, 1), 2)


def mean_lpips(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int, path: str = ""
) -> float:
    """The mean LPIPS distance, with AlexNet, of images and their reconstructions.

    Both are uint8 [m, H, W, 3] in each pair, m at most `batch_size`; for `path` see `load_lpips`.
    """
    weights, distances = load_lpips("alex", path), []
    for pair in pairs:
        originals, decoded = (next(in_batches(part, batch_size)) for part in pair)
        values = _lpips_program()(weights, images_to_float(decoded), images_to_float(originals))
        distances.append(np.asarray(values)[: len(pair[0])])
    return float(np.mean(np.concatenate(distances)))


@cache
def _lpips_program() -> Callable[..., jax.Array]:
    return jax.jit(partial(lpips, network="alex"), compiler_options=compiler_options())
