"""LPIPS against the PyTorch package of its authors; its gradients."""

import functools

import jax
import jax.numpy as jnp
import lpips as authors
import numpy as np
import pytest
import torch

from pivq_jax.common.errors import InputError
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.losses.lpips_weights import load_lpips
from pivq_jax.losses.perceptual import lpips, lpips_distance, lpips_features

jitted_lpips = jax.jit(lpips, static_argnames="network")
jitted_features = jax.jit(lpips_features, static_argnames="network")


@functools.partial(jax.jit, static_argnames="network")
def value_and_gradient(params, a, b, network):
    return jax.value_and_grad(lambda x: lpips(params, x, b, network).sum())(a)


# The authors use old arguments of torchvision.
pytestmark = pytest.mark.filterwarnings("ignore:.*weight:UserWarning")


@pytest.fixture(
    scope="module",
    # VGG16 takes 25 times the work.
    params=[
        name if name == "alex" else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES
    ],
)
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def params(network: str):
    return load_lpips(network)


def image_pairs(count: int, size: int) -> np.ndarray:
    """f32 [2, count, size, size, 3]: from a little noise on smooth images to unrelated ones."""
    rng = np.random.default_rng(size)
    coarse = rng.uniform(-1, 1, (2, count, 8, 8, 3))
    smooth = np.repeat(np.repeat(coarse, -(-size // 8), 2), -(-size // 8), 3)[:, :, :size, :size]
    share = np.linspace(0, 1, count)[:, None, None, None]
    related = smooth[0] + share * (smooth[1] - smooth[0])
    noise = share * rng.normal(0, 0.3, smooth[0].shape)
    return np.clip([smooth[0], related + noise], -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def theirs(network: str, params) -> torch.nn.Module:
    """The authors' module with their heads and our backbone."""
    with pytest.MonkeyPatch.context() as patch:
        # Initialising 138 million weights that are then replaced would take seconds.
        for name in ("normal_", "kaiming_normal_", "kaiming_uniform_", "trunc_normal_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *a, **k: tensor)
        module = authors.LPIPS(net=network, pnet_rand=True, verbose=False)
    convolutions = [m for m in module.net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == len(params["backbone"])
    with torch.no_grad():
        for i, convolution in enumerate(convolutions):
            ours = params["backbone"][f"conv_{i}"]
            kernel = np.asarray(ours["kernel"]).transpose(3, 2, 0, 1)
            convolution.weight.copy_(torch.from_numpy(kernel.copy()))
            convolution.bias.copy_(torch.from_numpy(np.array(ours["bias"])))
    return module


@pytest.mark.parametrize("size", [32, 53])
def test_equals_the_authors_package_on_64_pairs(network, params, theirs, size):
    a, b = image_pairs(64, size)
    result = jitted_lpips(params, a, b, network)

    with torch.no_grad():
        pair = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (a, b))
        expected = theirs(*pair).numpy().ravel()
    assert expected[0] == 0 and expected.max() > 0.1  # from equal pairs to unlike ones
    np.testing.assert_allclose(result, expected, atol=1e-5, rtol=0)


def test_gradient_equals_the_authors_package(network, params, theirs):
    a, b = image_pairs(4, 32)[:, 1:]
    _, result = value_and_gradient(params, a, b, network)

    tensors = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (a, b)]
    tensors[0].requires_grad_()
    theirs(*tensors).sum().backward()
    expected = tensors[0].grad.numpy().transpose(0, 2, 3, 1)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result / scale, expected / scale, atol=1e-4)


def test_equal_images_are_at_distance_0_with_gradient_0(network, params):
    images = image_pairs(3, 32)[0]
    images[:2] = np.array([-1, 1])[:, None, None, None]
    value, gradient = value_and_gradient(params, images, images, network)
    # Compiled, the two branches may round differently.
    np.testing.assert_allclose(value, 0, atol=1e-9)  # of three images
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_gradients_are_finite_where_features_vanish(network, params):
    silent = jax.tree.map(jnp.zeros_like, params["backbone"])
    images = image_pairs(3, 32)[0]
    _, gradient = value_and_gradient({**params, "backbone": silent}, images, -images, network)
    assert np.isfinite(gradient).all()


def test_bfloat16_images_are_compared_in_float32(network, params):
    a, b = image_pairs(3, 32).astype(jnp.bfloat16)
    result = jitted_lpips(params, a, b, network)
    assert result.dtype == jnp.float32
    rounded = jitted_lpips(params, a.astype(np.float32), b.astype(np.float32), network)
    np.testing.assert_array_equal(result, rounded)


def test_it_is_float32_with_64_bits_too(network, params):
    a, b = image_pairs(3, 32)
    with jax.enable_x64(True):
        compare = functools.partial(lpips, params, network=network)
        assert jax.eval_shape(compare, a.astype(np.float64), b).dtype == jnp.float32


def test_a_targets_features_serve_several_images(network, params):
    a, b = image_pairs(3, 32)
    target = jitted_features(params, b, network)
    for images in (a, -a):
        result = lpips_distance(params, jitted_features(params, images, network), target)
        np.testing.assert_allclose(result, jitted_lpips(params, images, b, network), atol=1e-6)


def test_smallest_images_are_as_documented(network, params):
    smallest = BACKBONES[network].minimum_size
    a, b = np.zeros((2, 1, smallest, smallest + 3, 3), np.float32)
    assert np.isfinite(jitted_lpips(params, a, b + 0.5, network)).all()
    with pytest.raises(InputError, match=f"at least {smallest}x{smallest}"):
        jitted_lpips(params, a[:, 1:], b[:, 1:], network)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match=r"'squeeze'.*alex, vgg"):
        lpips({}, jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 3)), "squeeze")
