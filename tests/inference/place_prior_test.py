"""A model of several stages with its prior: what it draws, and what it leaves to other models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pivq_jax
from pivq_jax import codec, sampling
from pivq_jax.common.errors import InputError
from pivq_jax.config.sections import PriorConfig
from pivq_jax.data import load_dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.evaluation import completions
from pivq_jax.evaluation import prior as module
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import TrainedModel
from pivq_jax.model.quantizer import place_vectors
from pivq_jax.sampling.completion import complete_patches
from pivq_jax.sampling.prior import build_prior, initial_parameters
from tests.conftest import STAGES
from tests.parameters import make_model, with_settings


@pytest.fixture(scope="module")
def model(tiny_config) -> TrainedModel:
    config = tiny_config.with_fields(STAGES)
    space = sampling.CodeSpace.of(config)
    model = make_model(config, scale=0.2)
    codebook = model.params["quantizer"]["codebook"]
    half = codebook.shape[1] // 2
    owners = np.arange(len(codebook)) % space.places  # as many entries for each place
    codebook = jnp.concatenate([place_vectors(space.places, half)[owners], codebook[:, half:]], 1)
    model.params["quantizer"]["codebook"] = codebook
    network = build_prior(space, codebook, PriorConfig(width=8, depth=1, heads=2))
    weights = jax.jit(initial_parameters, static_argnums=0)(network, jax.random.key(1))
    return dataclasses.replace(model, prior=sampling.Prior(network, weights, bits=20.5))


def test_what_it_draws_has_a_code_of_each_place_and_stage(model):
    codes = np.asarray(model.sample_prior(jax.random.key(0), 5))
    assert model.prior.network.slots.fits(codes).all()
    assert model.decode(codes).shape == (5, 16, 16, 3)
    whole = np.asarray(model.complete_sets(codes[:, 3:9], jax.random.key(1)))
    assert model.prior.network.slots.fits(whole).all()
    assert all(set(some) <= set(row) for some, row in zip(codes[:, 3:9], whole, strict=True))


def test_it_draws_with_64_bits_too_and_refuses_infinite_temperatures(model):
    with jax.enable_x64(True):
        codes = np.asarray(model.sample_prior(jax.random.key(0), 2))
        assert model.prior.network.slots.fits(codes).all()
        assert model.decode(codes).dtype == jnp.float32
    with pytest.raises(ValueError, match="temperature = inf"):
        model.sample_prior(jax.random.key(0), 1, temperature=float("inf"))


def test_a_published_model_draws_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "faces")
    other = pivq_jax.from_pretrained(tmp_path / "faces")
    assert other.prior.bits == 20.5
    ours, theirs = (each.sample_prior(jax.random.key(2), 5) for each in (model, other))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_it_draws_the_hidden_patches_of_a_completion(model):
    data = load_dataset("random", image_size=16).test
    images = np.stack([data[i]["image"] for i in range(2)]).astype(np.float32) / 127.5 - 1
    visible = np.ones((2, 16, 16), bool)
    visible[0, :, :8], visible[1, :3] = False, False  # halves of patches, and three quarters
    whole = np.asarray(model.encode(images))
    found = np.asarray(model.complete(images, visible))
    slots = model.prior.network.slots
    assert slots.fits(found).all()
    side = 16 // int(model.config.model.patch_size)
    filled = np.where(visible[..., None], images, 1.0)
    for i, row in enumerate(found):
        seen = visible[i].reshape(side, 16 // side, side, -1).mean((1, 3)).ravel() >= 0.5
        assert not seen.all()
        place = slots.slot[row] // slots.entries.shape[1]
        assert set(place) == set(range(side**2)) and len(row) == whole.shape[1]
    without = dataclasses.replace(model, prior=None, parents=whole)
    assert not np.array_equal(found, without.complete(filled, visible))
    np.testing.assert_array_equal(found, model.complete(filled, visible))
    np.testing.assert_array_equal(model.complete(images, np.ones((16, 16), bool)), whole)
    with pytest.raises(ValueError, match="need parents or a prior"):
        dataclasses.replace(model, prior=None).complete(images, visible)


@pytest.mark.slow
def test_equal_images_are_completed_differently(model):
    image = load_dataset("random", image_size=16).test[0]["image"]
    visible = completions.visible_pixels("left", 16, 9)
    codes = model.complete(images_to_float(np.repeat([image], 9, 0)), visible)
    assert len(np.unique(codes, axis=0)) == 9  # and are so eight at a time


@pytest.mark.slow
def test_what_is_drawn_for_an_image_depends_on_its_number_alone(model):
    given = model.sample_prior(jax.random.key(3), 1)
    visible = jnp.ones((1, 16, 16, 1)).at[:, :, :8].set(0)

    def draw(first: int, count: int) -> np.ndarray:
        how = jnp.repeat(given, count, 0), jnp.repeat(visible, count, 0), first
        space, codebook = model.space, model.codebook
        return np.asarray(complete_patches(space, codebook, None, model.prior, *how))

    whole = np.concatenate([draw(0, 8), draw(8, 8)])
    assert len(np.unique(whole, axis=0)) == 16
    np.testing.assert_array_equal(draw(5, 8), whole[5:13])


def test_a_little_of_each_patch_is_enough_to_find_a_parent(model):
    parents = model.sample_prior(jax.random.key(3), 5)
    visible = np.zeros((1, 16, 16, 1), np.float32)
    visible[:, ::2, ::2] = 1  # a quarter of each patch
    codes = complete_patches(
        model.space, model.codebook, np.asarray(parents), None, parents[2:3], jnp.asarray(visible)
    )
    np.testing.assert_array_equal(codes, parents[2:3])


def test_it_chooses_no_pairs_and_codes_no_files(model):
    data = load_dataset("random", image_size=16).test
    images = np.stack([data[i]["image"] for i in range(2)]).astype(np.float32) / 127.5 - 1
    codes = np.asarray(model.encode(images))
    with pytest.raises(ValueError, match="a prior over places does not choose pairs"):
        model.recombine(codes, codes[::-1], jax.random.key(0), prior=True)
    with pytest.raises(InputError, match="several stages cannot be coded by a prior"):
        codec.write("unused.pivq", model, codes, ["a", "b"], "prior")


@pytest.mark.slow
def test_the_report_has_its_bits_and_completions_of_places(model, tmp_path, monkeypatch):
    model = with_settings(model, batch_size=8, samples=20, neighbours=1)
    session = Session(model, load_dataset("random", image_size=16), tmp_path)
    asked, own = [], TrainedModel.complete_sets

    def complete(self, codes, *how):
        asked.append(np.asarray(codes))
        return own(self, codes, *how)

    monkeypatch.setattr(TrainedModel, "complete_sets", complete)
    monkeypatch.setattr(module, "GIVEN", (1 / 2,))  # each fraction is compiled
    metrics = module.describe_prior(session)
    slots = model.prior.network.slots
    fits = slots.fits(session.test_codes)
    assert fits.any() and metrics["prior_bits_sets"] == fits.sum()
    choices = (slots.entries >= 0).sum(-1)  # equally likely before training
    assert metrics["prior_bits"] == pytest.approx(np.log2(choices).sum(), rel=1e-4)
    of = slots.slot[asked[-1]] // slots.entries.shape[1]  # whole places, but for the last one
    assert all(np.sum(np.bincount(row)[np.unique(row)] % 2) <= 2 for row in of)


def test_its_completions_need_no_codes_of_training_images(model, tmp_path):
    session = Session(model, load_dataset("random", image_size=16), tmp_path)
    del session.pool
    completions.write_completions(session, "left", 1)
    assert (tmp_path / "completions_left.png").exists()
