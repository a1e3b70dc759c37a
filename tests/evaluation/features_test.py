"""Feature extraction: batches, names, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float
from pivq_jax.evaluation import features, inception
from pivq_jax.evaluation.features import NETWORKS, feature_extractor
from pivq_jax.losses.perceptual import lpips_features


def images(count: int, size: int = 32) -> np.ndarray:
    shape = (count, size, size, 3)
    return np.random.default_rng(count).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def vgg() -> features.FeatureExtractor:
    return feature_extractor("vgg", batch_size=4)


@pytest.fixture(scope="module")
def random_params():
    """Random weights in the place of Inception's, for which a file would have to be at hand."""
    x = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    shapes = jax.eval_shape(inception.InceptionV3().init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(0)

    def weights(leaf):
        fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
        return rng.normal(0, (2 / fan_in) ** 0.5, leaf.shape).astype(np.float32)

    return jax.tree.map(weights, shapes)


@pytest.fixture
def random_inception(random_params, monkeypatch) -> None:
    monkeypatch.setattr(inception, "load_inception", lambda path="": random_params)


# The maps have an even and an odd number of places on a side.
@pytest.mark.parametrize("name, depth, size", [("vgg", 3, 32), ("vgg", 3, 56), ("alex", 2, 56)])
def test_features_are_averages_of_a_map_and_of_its_quarters(name, depth, size):
    extractor, x = feature_extractor(name, batch_size=4), images(6, size)
    found = extractor.extract_all(x)
    maps = lpips_features(extractor.params, images_to_float(jnp.asarray(x)), name)
    maps = np.asarray(maps[depth])
    half = -(-maps.shape[1] // 2)  # a middle row or column counts on both sides
    corners = [maps[:, r, c] for r in np.s_[:half, -half:] for c in np.s_[:half, -half:]]
    expected = np.concatenate([corner.mean((1, 2)) for corner in corners], 1)
    assert found.quadrants.shape == (6, 4 * extractor.dim)
    np.testing.assert_allclose(found.quadrants, expected, atol=1e-5)
    np.testing.assert_allclose(found.whole, maps.mean((1, 2)), atol=1e-5)
    np.testing.assert_array_equal(found.whole, extractor.extract(x))


def test_every_image_gets_the_features_it_gets_alone_or_in_any_batch(vgg):
    x = images(10)
    result = vgg.extract(jnp.asarray(x))  # two batches and a part of one
    assert result.shape == (10, vgg.dim) and result.dtype == np.float32
    for i in (0, 5, 9):
        np.testing.assert_allclose(vgg.extract(x[i : i + 1])[0], result[i], atol=1e-5)
    parts = np.split(x, [4, 4])
    np.testing.assert_array_equal(vgg.extract(iter(parts), total=10), result)


def test_vgg_features_are_means_of_its_fourth_block(vgg):
    """Against PyTorch's VGG16 with the same weights."""
    import torch
    import torchvision

    x = images(2)
    layers = torchvision.models.vgg16(init_weights=False).features
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for i, layer in enumerate(convolutions):
            ours = vgg.params["backbone"][f"conv_{i}"]
            kernel = np.asarray(ours["kernel"]).transpose(3, 2, 0, 1).copy()
            layer.weight.copy_(torch.from_numpy(kernel))
            layer.bias.copy_(torch.from_numpy(np.array(ours["bias"])))
        mean, deviation = (
            torch.tensor(v).reshape(1, 3, 1, 1)
            for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        y = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).float() / 255
        y = (y - mean) / deviation
        for layer in layers[:23]:
            y = layer(y)
        expected = (y / y.norm(dim=1, keepdim=True).clamp_min(1e-5)).mean((2, 3)).numpy()
    assert isinstance(layers[22], torch.nn.ReLU) and layers[22 + 1].kernel_size == 2
    assert expected.std(0).max() > 1e-3  # the images are told apart
    np.testing.assert_allclose(vgg.extract(x), expected, atol=1e-5)


@pytest.mark.usefixtures("random_inception")
def test_inception_features_are_of_the_block_with_so_many_channels(random_params):
    """Blocks themselves are compared with pytorch-fid's in inception_test.py."""
    extractor = feature_extractor(NETWORKS[-1])
    found = jax.eval_shape(extractor.apply, random_params, images(3, 24))
    assert found.shape == (3, 5, extractor.dim) == (3, 5, 2048)


@pytest.mark.usefixtures("random_inception")
def test_inception_features_are_means_of_a_block(random_params):
    @jax.jit
    def first_block(params, x):
        return inception.InceptionV3().apply({"params": params}, inception.prepare(x))[0]

    x = images(3, 24)
    expected = np.asarray(first_block(random_params, x)).mean((1, 2))
    found = feature_extractor("inception_64", batch_size=2).extract(x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no images"),
        (np.zeros((2, 32, 32, 3), np.float32), r"uint8 images .* not of float32"),
        (np.zeros((2, 32, 32, 1), np.uint8), r"not of uint8 \(2, 32, 32, 1\)"),
        (np.zeros((2, 15, 32, 3), np.uint8), "15x32 pixels .* 16x16 at least"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(vgg, bad, message):
    with pytest.raises(InputError, match=message):
        vgg.extract(bad)
    with pytest.raises(InputError, match="'resnet' are unknown: choose one of vgg, alex"):
        feature_extractor("resnet")
