"""PSNR against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.common.psnr import psnr


@settings(max_examples=25)
@given(st.integers(0, 2**31))
def test_psnr_is_the_textbook_formula_for_each_image(seed):
    a, b = np.random.default_rng(seed).integers(0, 256, (2, 3, 4, 4, 3))
    mse = ((a - b).astype(np.float64) ** 2).mean((1, 2, 3))
    expected = 10 * np.log10(255**2 / mse)
    result = psnr(jnp.asarray(a, jnp.uint8), jnp.asarray(b, jnp.uint8), 255.0)
    np.testing.assert_allclose(result, expected, 1e-5)


def test_psnr_does_not_depend_on_the_scale_of_pixels():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 2, 8, 8, 3)).astype(np.uint8)
    floats = [x.astype(np.float32) / 127.5 - 1 for x in (a, b)]
    np.testing.assert_allclose(psnr(a, b, 255.0), psnr(*floats, 2.0), rtol=1e-5)


def test_equal_images_have_a_finite_psnr_and_finite_gradients():
    image = jnp.full((1, 4, 4, 3), 0.5)
    assert 140 < psnr(image, image, 2.0)[0] < 150
    gradient = jax.grad(lambda x: psnr(x, image, 2.0)[0])(image)
    assert np.all(np.isfinite(gradient))
