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
from tests.parameters import make_model

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
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permuted(codes, axis=1)
        assert np.asarray(trained_model.decode(shuffled)).tobytes() == decoded.tobytes()


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


def test_recombined_codes_go_together_with_the_lift_of_many_images(trained_model):
    codes = random_sets(0, 64)
    lift = trained_model.log_lift(codes)
    key = jax.random.key(0)
    mixed = np.asarray(trained_model.recombine(codes[:8], codes[8:16], key, lift=lift))
    assert is_set(mixed)

    def plausibility(sets: np.ndarray) -> float:
        return float(np.asarray(lift)[sets[:, :, None], sets[:, None]].sum())

    plain = np.asarray(trained_model.recombine(codes[:8], codes[8:16], key))
    assert plausibility(mixed) > plausibility(plain)


def test_without_a_prior_none_recombines(trained_model):
    with pytest.raises(ValueError, match=r"no prior: train one with pivq_jax\.prior train"):
        trained_model.recombine(random_sets(0), random_sets(1), jax.random.key(0), prior=True)


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


def test_parameters_may_be_those_of_numpy(trained_model):
    model = dataclasses.replace(trained_model, params=jax.device_get(trained_model.params))
    a, b = random_sets(0), random_sets(1)
    paths = (each.interpolate(a, b, 3) for each in (model, trained_model))
    np.testing.assert_array_equal(*paths)


def test_codes_may_be_of_any_integer_type(trained_model):
    codes = np.arange(N, dtype=np.int8)[None]  # K does not fit
    decoded = [np.asarray(trained_model.decode(x)) for x in (codes, codes.astype(np.int32))]
    np.testing.assert_array_equal(*decoded)


def test_without_parents_there_are_no_samples(trained_model):
    with pytest.raises(ValueError, match=r"no parents to recombine: use dataclasses\.replace"):
        trained_model.sample(jax.random.key(0), 4)
    model = dataclasses.replace(trained_model, parents=random_sets(0, 1))
    with pytest.raises(ValueError, match="2 parents of a pool of 1 images"):
        model.sample(jax.random.key(0), 4)
    model = dataclasses.replace(trained_model, parents=random_sets(0, 2))
    with pytest.raises(ValueError, match="count = 0: use at least 1"):
        model.sample(jax.random.key(0), 0)


def test_what_is_added_fits_and_makes_another_model(trained_model):
    labels = Labels(np.zeros((8, 1), np.int64), {"hair": ("none", "long")})
    parents = jnp.asarray(random_sets(0))
    model = dataclasses.replace(trained_model, parents=parents, labels=labels)
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
    with pytest.raises(ValueError, match="give"):
        pivq_jax.save_grid(tmp_path / "one.png", images[0])
    with pytest.raises(ValueError, match="images are int64: give floats"):
        pivq_jax.save_grid(tmp_path / "whole.png", np.full((1, 8, 8, 3), 100))
    with pytest.raises(ValueError, match="columns = 0: use at least 1"):
        pivq_jax.save_grid(tmp_path / "none.png", images, columns=0)


def test_an_image_decodes_alike_in_any_batch(trained_model, images):
    codes = np.asarray(trained_model.encode(images))
    np.testing.assert_array_equal(trained_model.encode(images[:3]), codes[:3])
    np.testing.assert_allclose(
        trained_model.decode(codes[:3]), trained_model.decode(codes)[:3], atol=1e-5
    )


def test_what_the_model_says_of_itself(trained, trained_model):
    assert trained_model.step == 60 and trained_model.space == CodeSpace(N, K)
    assert trained_model.codebook.shape == (K, 32)
    count = sum(leaf.size for leaf in jax.tree.leaves(trained_model.params))
    assert trained_model.num_parameters == trained.metrics["parameters"] == count
    assert trained_model.progress["train_seconds"] == trained.metrics["train_seconds"]


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((2, 64, 64, 3), np.float32),
        ((32, 32, 3), np.float32),
        ((0, 32, 32, 3), np.float32),
        ((2, 32, 32, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(trained_model, shape, dtype):
    with pytest.raises(ValueError, match="give"):
        trained_model.encode(np.zeros(shape, dtype))


def test_images_of_another_range_are_refused(trained_model, images):
    with pytest.raises(ValueError, match=r"images range from 0 to 255: give floats in \[-1, 1\]"):
        trained_model.encode(np.linspace(0, 255, images[:1].size).reshape(images[:1].shape))
    trained_model.encode(1.1 * images[:1])  # interpolation may overshoot


def test_images_are_encoded_in_parts(trained_model, images, monkeypatch):
    whole = trained_model.encode(images)
    monkeypatch.setattr(trained_model_module, "ENCODED_AT_ONCE", 4)
    np.testing.assert_array_equal(trained_model.encode(images), whole)


def test_an_image_that_is_not_finite_is_named(trained_model, images):
    broken = images.copy()
    broken[5, 3, 3, 0] = np.nan
    with pytest.raises(ValueError, match="image 5 is not finite"):
        trained_model.encode(broken)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((2, 5), np.int32),
        np.zeros((0, N), np.int32),
        np.full((2, N), K),
        np.full((2, N), -1),
        np.zeros((2, N)),
    ],
)
def test_codes_of_another_kind_are_refused(trained_model, codes):
    with pytest.raises(ValueError, match="give"):
        trained_model.decode(codes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_the_other_kinds(tiny_config, kind):
    rng = np.random.default_rng(0)
    model = make_model(tiny_config.with_fields({"quantizer.kind": kind}))
    codes = rng.integers(0, 32, (3, 8)).astype(np.int32)
    codes[:, 1] = codes[:, 0]  # a multiset
    same = np.array_equal(model.decode(codes), model.decode(codes[:, ::-1]))
    assert same == (kind == "nearest")
    encoded = np.asarray(model.encode(rng.uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)))
    assert encoded.shape == (3, 8) and encoded.min() >= 0 and encoded.max() < 32
    assert kind == "positional" or np.all(np.diff(encoded, axis=1) >= 0)
    model = dataclasses.replace(model, parents=encoded)
    assert set(np.asarray(model.sample(jax.random.key(0), 2)).flat) <= set(encoded.flat)


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
