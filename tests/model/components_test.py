"""Principal components as latents: beside scikit-learn, and what an image is the sum of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from pivq_jax.common.errors import InputError
from pivq_jax.config import Config
from pivq_jax.config.check import check_config
from pivq_jax.config.sections import OptimizerConfig
from pivq_jax.data.images import images_to_uint8
from pivq_jax.interop import to_torch
from pivq_jax.interop.torch_model import PIVQ as Reference
from pivq_jax.model.components import match_own, principal_components, shrunk
from pivq_jax.model.k_means import own_entries
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.model.quantizer import match_latents
from pivq_jax.training.optimizer import make_optimizer

SIZE, CODES, COMPONENTS = 16, 6, 24
FIELDS = {
    "data.image_size": SIZE,
    "model.encoder": "components",
    "model.num_components": COMPONENTS,
    "model.num_codes": CODES,
    "model.code_dim": 10,  # seven components of the longest run, three bits
    "model.width": 16,
    "quantizer.codebook_size": CODES * 8,
    "quantizer.init_at": 0.0,
    "quantizer.freeze_at": 0.0,
}


def config(**fields: Any) -> Config:
    return Config().with_fields({**FIELDS, **fields})


def faces(count: int = 200) -> np.ndarray:
    """Images of a few directions, the first ones the largest: float32 [count, 16, 16, 3]."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(40, 3 * SIZE**2)) * 0.9 ** np.arange(40)[:, None]
    flat = rng.normal(size=(count, 40)) @ patterns / 20
    return np.clip(flat, -1, 1).reshape(count, SIZE, SIZE, 3).astype(np.float32)


def flatten(images: jax.Array) -> jax.Array:
    return shrunk(images, SIZE)


@pytest.fixture(scope="module")
def model() -> tuple[PIVQ, Any, np.ndarray]:
    """A model whose components and entries are those of images, which come with it."""
    images, network = faces(), pivq_from_config(config())
    params = network.init(jax.random.key(0), images[:1])["params"]
    parts = jnp.asarray(images).reshape(10, 20, SIZE, SIZE, 3)
    params["encoder"] = principal_components(parts, flatten, COMPONENTS, jax.random.key(1))
    latents = network.apply({"params": params}, images, method="latents")
    params["quantizer"]["codebook"] = own_entries(latents, CODES * 8, jax.random.key(2))
    return network, params, images


def test_components_are_those_of_scikit_learn(model):
    _, params, images = model
    exact = PCA(COMPONENTS, svd_solver="full").fit(images.reshape(len(images), -1))
    found = params["encoder"]
    np.testing.assert_allclose(found["mean"], exact.mean_, atol=1e-5)
    deviations = np.sqrt(exact.explained_variance_ * (len(images) - 1) / len(images))
    np.testing.assert_allclose(found["deviations"], deviations, rtol=1e-3)
    np.testing.assert_allclose(found["basis"].T @ found["basis"], np.eye(COMPONENTS), atol=1e-4)
    cosines = np.abs(np.sum(exact.components_.T * np.asarray(found["basis"]), 0))
    assert cosines.min() > 0.99


@given(st.integers(1, 40), st.integers(0, 200))
def test_runs_are_whole_and_grow(codes, more):
    settings = config(**{"model.num_codes": codes, "model.num_components": codes + more}).model
    lengths = np.diff(settings.runs)
    assert settings.runs[0] == 0 and settings.runs[-1] == codes + more
    assert lengths.min() >= 1 and lengths.max() == settings.longest_run
    assert lengths[0] <= lengths[-1]


def test_an_image_begins_as_the_sum_of_the_patterns_of_its_codes(model):
    network, params, images = model
    bound = network.bind({"params": params})
    latents = bound.latents(images[:5])
    said, patterns = bound.encoder.patterns(latents)
    exact = PCA(COMPONENTS, svd_solver="full").fit(images.reshape(len(images), -1))
    flat = exact.inverse_transform(exact.transform(images[:5].reshape(5, -1)))
    np.testing.assert_allclose(patterns.reshape(5, -1), np.clip(flat, -1, 1), atol=1e-3)
    # The network gets each component once, in units of its deviation.
    assert np.count_nonzero(np.asarray(said)) == 5 * COMPONENTS
    np.testing.assert_allclose(bound.decode_vectors(latents), patterns, atol=1e-6)
    assert np.linalg.norm(said[0].sum(0)) == pytest.approx(COMPONENTS**0.5, rel=0.5)


def test_the_nearest_entry_of_each_latent_is_the_matching(model):
    network, params, images = model
    latents = network.apply({"params": params}, images, method="latents")
    codebook = params["quantizer"]["codebook"]
    own, finite = match_own(latents, codebook)
    np.testing.assert_array_equal(own, match_latents(latents, codebook)[0])
    assert finite.all() and len(np.unique(own)) > 30
    np.testing.assert_array_equal(np.asarray(own) // 8, np.tile(np.arange(CODES), (200, 1)))
    broken = latents.at[3, 2, 0].set(jnp.nan)
    np.testing.assert_array_equal(match_own(broken, codebook)[1], np.arange(200) != 3)


def test_no_optimizer_changes_components(model):
    _, params, _ = model
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.1, warmup=0.0), 10)
    gradients = {part: jax.tree.map(jnp.ones_like, x) for part, x in params.items()}
    gradients["encoder"] = jax.tree.map(jnp.zeros_like, params["encoder"])
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert not any(np.any(x) for x in jax.tree.leaves(updates["encoder"]))
    assert all(np.any(x) for x in jax.tree.leaves(updates["decoder"]))


def test_the_model_in_pytorch_has_the_same_codes_and_images(model):
    """Of images of 128 pixels, whose components are those of 64."""
    _, held, images = model
    settings = config(**{"data.image_size": 128, "model.patch_size": 16})
    large = images.repeat(8, 1).repeat(8, 2)
    network = pivq_from_config(settings)
    params = network.init(jax.random.key(0), large[:1])["params"]
    parts = jnp.asarray(large[:100]).reshape(5, 20, 128, 128, 3)
    params["encoder"] = principal_components(
        parts, lambda x: shrunk(x, 64), COMPONENTS, jax.random.key(1)
    )
    kernel = params["decoder"]["output"]["pixels"]["kernel"]
    params["decoder"]["output"]["pixels"]["kernel"] = 0.1 * jax.random.normal(
        jax.random.key(3), kernel.shape
    )
    params["quantizer"]["codebook"] = held["quantizer"]["codebook"]
    reference = Reference(settings.to_dict())
    state = {name: torch.from_numpy(x) for name, x in to_torch(params).items()}
    reference.load_state_dict(state)
    codes, *_ = network.apply({"params": params}, large[:4], method="encode")
    decoded = np.clip(network.apply({"params": params}, codes, method="decode"), -1, 1)
    with torch.no_grad():
        theirs = reference.encode(torch.from_numpy(large[:4].transpose(0, 3, 1, 2).copy()))
        images_there = reference.decode(theirs).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(codes, theirs)
    np.testing.assert_allclose(images_there, decoded, atol=1e-5)
    assert decoded.std() > 0.05


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"quantizer.freeze_at": 0.1}, r"set quantizer\.init_at = quantizer\.freeze_at = 0"),
        ({"model.num_components": 5}, r"at least model\.num_codes = 6"),
        ({"model.num_components": 769}, r"at most the 768 values of an image"),
        ({"model.code_dim": 9}, r"model\.code_dim = 9 must be 10"),
        ({"quantizer.codebook_size": 50}, r"codebook_size = 50 must be a multiple of model\.num_"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    check_config(config(), training=False)
    with pytest.raises(InputError, match=message):
        check_config(config(**fields), training=False)


COMPARE = """
import jax, jax.numpy as jnp, numpy as np
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config import Config
from pivq_jax.training.steps import Steps

images, one = np.load({images!r}), None
meshes = {{"1": make_mesh(devices=jax.devices()[:1]), "8x1": make_mesh(), "2x4": make_mesh(4)}}
for name, mesh in meshes.items():
    steps = Steps(Config().with_fields({fields!r}), mesh)
    batches = [put_batch(images[i : i + 16], mesh) for i in range(0, 128, 16)]
    state = steps.find_components(steps.create(), jnp.stack(batches))
    encoder = {{key: np.asarray(value) for key, value in state.params["encoder"].items()}}
    one = one or encoder
    np.testing.assert_allclose(encoder["deviations"], one["deviations"], rtol=1e-3)
    # The same directions, but for signs.
    assert np.min(np.abs(np.sum(encoder["basis"] * one["basis"], 0))) > 0.999, name
print("same")
"""


@pytest.mark.slow
def test_components_are_those_of_one_device_on_eight(commands, tmp_path):
    np.save(tmp_path / "images.npy", images_to_uint8(faces()))
    fields, images = FIELDS | {"train.batch_size": 16}, str(tmp_path / "images.npy")
    done = commands.run(code=COMPARE.format(fields=fields, images=images), devices=8)
    assert done.code == 0 and done.stdout.strip() == "same", done.stderr
