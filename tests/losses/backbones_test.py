"""Pooling and convolutions of the perceptual networks against PyTorch's.

Equal values and NaN are included, and images that are smaller than a kernel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pivq_jax.losses.backbones import _Conv, max_pool


@functools.partial(jax.jit, static_argnums=(2, 3))
def pool_and_pull_back(x, cotangent, window, stride):
    result, pull_back = jax.vjp(lambda x: max_pool(x, window, stride), x)
    return result, *pull_back(cotangent)


@pytest.mark.parametrize("window, stride", [(2, 2), (3, 2)])
@pytest.mark.parametrize("size", [(8, 9), (7, 6)])
def test_pooling_and_its_gradient_are_pytorch_s(window, stride, size):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, *size, 4)).astype(np.float32)  # most maxima occur several times
    tensor = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    pooled = torch.nn.functional.max_pool2d(tensor, window, stride)
    weights = rng.integers(1, 100, pooled.shape).astype(np.float32)  # sums of these are exact
    pooled.backward(torch.from_numpy(weights))

    cotangent = jnp.asarray(weights.transpose(0, 2, 3, 1))
    result, gradient = pool_and_pull_back(jnp.asarray(x), cotangent, window, stride)
    np.testing.assert_array_equal(result, pooled.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(gradient, tensor.grad.numpy().transpose(0, 2, 3, 1))


def test_a_window_with_nan_has_the_maximum_nan():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 1] = np.nan
    result = max_pool(jnp.asarray(x), 2, 2)
    np.testing.assert_array_equal(np.isnan(result).ravel(), [True, False, False, False])


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 7), (4, 3), (5, 5)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_convolutions_of_small_images_are_pytorch_s(kernel, size):
    rng = np.random.default_rng(0)
    layer = _Conv(6, (kernel, kernel), 1, kernel // 2)
    x = rng.normal(size=(2, *size, 4)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 4, 6)).astype(np.float32)
    params = {"params": {"kernel": weights, "bias": np.arange(6, dtype=np.float32)}}
    tensor = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.conv2d(
        tensor, torch.tensor(weights.transpose(3, 2, 0, 1)), torch.arange(6.0), padding=kernel // 2
    )
    cotangent = rng.normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(cotangent))

    result, pull_back = jax.vjp(lambda x: layer.apply(params, x), jnp.asarray(x))
    (gradient,) = pull_back(jnp.asarray(cotangent.transpose(0, 2, 3, 1)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(result, expected.detach().numpy().transpose(0, 2, 3, 1))
    close(gradient, tensor.grad.numpy().transpose(0, 2, 3, 1))
