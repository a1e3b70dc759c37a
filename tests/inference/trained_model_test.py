"""The public interface of a trained model."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pivq_jax
from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import grid
from pivq_jax.inference import trained_model as trained_model_module
from pivq_jax.sampling import CodeSpace, Labels, recombine_at_random

N, K = 32, 512  # of the trained run


@pytest.fixture(scope="module")
def images(faces) -> np.ndarray:
    """f32 [8, 32, 32, 3] in [-1, 1]."""
    return faces[:8, 8:40, 8:40].astype(np.float32) / 127.5 - 1


def is_set(codes: np.ndarray) -> bool:
    """Sorted, distinct, in range, int32."""
    codes = np.asarray(codes)
    increasing = np.all(np.diff(codes, axis=-1) > 0)
    return bool(codes.dtype == np.int32 and increasing and codes.min() >= 0 and codes.max() < K)


def random_sets(seed: int, count: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(K)[:N] for _ in range(count)]).astype(np.int32)


def test_shuffled_codes_decode_to_the_same_bits(trained_model, images):
    codes = np.asarray(trained_model.encode(images))
    assert codes.shape == (8, N) and is_set(codes)
    decoded = np.asarray(trained_model.decode(codes))
    shuffled = np.random.default_rng(0).permuted(codes, axis=1)
    assert np.asarray(trained_model.decode(shuffled)).tobytes() == decoded.tobytes()


def test_an_image_is_encoded_and_decoded_alike_in_any_batch(trained_model, images, monkeypatch):
    codes = np.asarray(trained_model.encode(images))
    np.testing.assert_array_equal(trained_model.encode(images[:3]), codes[:3])
    few = trained_model.decode(codes[:3])
    np.testing.assert_allclose(few, trained_model.decode(codes)[:3], atol=1e-5)
    monkeypatch.setattr(trained_model_module, "ENCODED_AT_ONCE", 4)
    np.testing.assert_array_equal(trained_model.encode(images), codes)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_every_set_of_codes_decodes(trained_model, seed):
    decoded = np.asarray(trained_model.decode(random_sets(seed)))
    assert decoded.shape == (8, 32, 32, 3) and decoded.dtype == np.float32
    assert np.all(np.isfinite(decoded)) and np.all(np.abs(decoded) <= 1)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_recombined_and_interpolated_codes_are_sets_of_the_parents_codes(trained_model, seed):
    a, b = (np.sort(random_sets(seed + i)) for i in range(2))
    mixed = trained_model.recombine(a, b, jax.random.key(seed % 1000), 0.5)
    path = trained_model.interpolate(a, b, 5)
    assert mixed.shape == (8, N) and is_set(mixed)
    assert path.shape == (5, 8, N) and is_set(path)
    np.testing.assert_array_equal(path[0], a)
    np.testing.assert_array_equal(path[-1], b)
    for row in range(8):
        parents = set(a[row]) | set(b[row])
        assert set(np.asarray(mixed)[row]) <= parents and set(np.asarray(path)[2, row]) <= parents
        assert set(a[row]) & set(b[row]) <= set(np.asarray(mixed)[row])


def test_samples_are_those_of_an_evaluation_with_this_seed(trained_model, monkeypatch):
    codes = random_sets(1, 40)
    model = dataclasses.replace(trained_model, parents=codes)
    whole = model.sample(jax.random.key(3), 9)
    assert whole.shape == (9, N) and is_set(whole)
    lift = trained_model.log_lift(codes)
    how = model.space, model.codebook, codes, 9, jax.random.key(3), 9
    expected, _ = recombine_at_random(*how, lift=lift)
    np.testing.assert_array_equal(whole, expected)
    tenth = model.config.with_fields({"sample.fraction": 0.1})
    drawn = dataclasses.replace(model, config=tenth).sample(jax.random.key(3), 9)
    expected, _ = recombine_at_random(*how, fraction=0.1, lift=lift)
    np.testing.assert_array_equal(drawn, expected)
    few = dataclasses.replace(model, parents=codes[:2])  # with a lift of its own
    np.testing.assert_array_equal(few.lift, trained_model.log_lift(codes[:2]))
    assert set(np.asarray(few.sample(jax.random.key(3), 9)).flat) <= set(codes[:2].flat)
    monkeypatch.setattr(trained_model_module, "RECOMBINED_AT_ONCE", 4)
    np.testing.assert_array_equal(model.sample(jax.random.key(3), 9), whole)


def test_what_is_added_fits_and_makes_another_model(trained_model):
    labels = Labels(np.zeros((8, 1), np.int64), {"hair": ("none", "long")})
    parents = jnp.asarray(random_sets(0))
    model = dataclasses.replace(trained_model, parents=parents, labels=labels)
    assert model.read_factors(parents).shape == model.edit(parents, hair="none")[:, :1].shape
    assert trained_model.parents is None and trained_model.labels is None
    np.testing.assert_array_equal(model.parents, parents)
    assert isinstance(model.parents, np.ndarray) and model.labels.values.dtype == np.int32
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.parents = None
    with pytest.raises(ValueError, match=r"codes are int32 \(8, 5\)"):
        dataclasses.replace(model, parents=parents[:, :5])
    for change in ({"parents": parents[:7]}, {"parents": None}):
        with pytest.raises(ValueError, match=r"labels have shape \(8, 1\)"):
            dataclasses.replace(model, **change)


def test_a_grid_of_images_is_written(tmp_path, images):
    pivq_jax.save_grid(tmp_path / "new" / "grid.png", jnp.asarray(images[:5]), columns=3)
    picture = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    pixels = np.round((images[:5] + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(picture, grid(pixels, 3, scale=4))
    pivq_jax.save_grid(tmp_path / "grid.png", pixels, columns=3)
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "new" / "grid.png").read_bytes()
    for wrong, columns, message in (
        (images[0], 8, "give"),
        (np.full((1, 8, 8, 3), 100), 8, "images are int64: give floats"),
        (images, 0, "columns = 0: use at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            pivq_jax.save_grid(tmp_path / "none.png", wrong, columns=columns)


def test_what_the_model_says_of_itself(trained, trained_model):
    assert trained_model.step == 60 and trained_model.space == CodeSpace(N, K)
    assert trained_model.codebook.shape == (K, 32)
    count = sum(leaf.size for leaf in jax.tree.leaves(trained_model.params))
    assert trained_model.num_parameters == trained.metrics["parameters"] == count
    assert trained_model.progress["train_seconds"] == trained.metrics["train_seconds"]


def test_a_checkpoint_without_a_codebook_is_refused(trained, tmp_path):
    text = (Path(trained.workdir) / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"init_at": 0.0', '"init_at": 0.667'))
    shutil.copytree(Path(trained.workdir) / "checkpoints", tmp_path / "checkpoints")
    assert pivq_jax.load(tmp_path, 40).progress["codebook"] == "trained"
    path = tmp_path / "checkpoints" / "40" / "progress" / "metadata"
    progress = json.loads(path.read_text())
    del progress["codebook"]
    path.write_text(json.dumps(progress))
    with pytest.raises(InputError, match="at step 40, but the codebook is initialised at step 40"):
        pivq_jax.load(tmp_path, 40)


NO_IMAGES = np.zeros((2, 32, 32, 3), np.float32)
NAN = np.where(np.arange(8)[:, None, None, None] == 5, np.nan, np.zeros((8, 32, 32, 3)))


@pytest.mark.parametrize(
    "images, message",
    [
        (NO_IMAGES[:, :16], "give"),
        (NO_IMAGES[:0], "give"),
        (NO_IMAGES.astype(np.uint8), "give floats"),
        (NO_IMAGES + np.linspace(0, 255, 32)[:, None], "images range from 0 to 255: give floats"),
        (NAN, "image 5 is not finite"),
    ],
)
def test_images_of_another_kind_are_refused(trained_model, images, message):
    trained_model.encode(NO_IMAGES + np.float32(1.1))  # interpolation may overshoot
    with pytest.raises(ValueError, match=message):
        trained_model.encode(images)


@pytest.mark.parametrize(
    "codes", [np.zeros((2, 5), int), np.zeros((0, N), int), np.full((2, N), K)]
)
def test_codes_of_another_kind_are_refused(trained_model, codes):
    with pytest.raises(ValueError, match="give"):
        trained_model.decode(codes)


@pytest.mark.parametrize(
    "parents, use, message",
    [
        (None, lambda model, key: model.sample(key, 4), "no parents to recombine"),
        (1, lambda model, key: model.sample(key, 4), "2 parents of a pool of 1 images"),
        (2, lambda model, key: model.sample(key, 0), "count = 0: use at least 1"),
        (
            2,
            lambda model, key: model.recombine(model.parents, model.parents, key, prior=True),
            r"no prior: train one with pivq_jax\.prior train",
        ),
        (2, lambda model, key: model.sample_prior(key, 0), "count = 0: draw at least 1"),
        (2, lambda model, key: model.read_factors(model.parents), "no labels"),
    ],
)
def test_what_a_model_lacks_is_said(trained_model, parents, use, message):
    codes = None if parents is None else random_sets(0, parents)
    model = dataclasses.replace(trained_model, parents=codes)
    with pytest.raises(ValueError, match=message):
        use(model, jax.random.key(0))
