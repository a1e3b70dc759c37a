"""The models that the package brings: whatever their weights, they do what their name says."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

import pivq_jax
from pivq_jax.common.hub import shipped_models
from pivq_jax.data import toon_faces
from pivq_jax.evaluation.session import Session
from pivq_jax.prior.report import describe_bits
from pivq_jax.sampling import prior_bits
from pivq_jax.training.build import dataset_from_config

SHIPPED = shipped_models()


@pytest.fixture(scope="module")
def model():
    return pivq_jax.from_pretrained("toon_faces")


def drawn_faces(split: str, count: int, size: int) -> np.ndarray:
    """f32 [count, size, size, 3] in [-1, 1], the first of a split."""
    files = [toon_faces.render_face(s, size) for s in toon_faces.face_seeds(split, count)]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    return np.stack(images).astype(np.float32) / 127.5 - 1


def test_held_out_faces_are_reconstructed(model):
    faces = drawn_faces("test", 32, model.config.data.image_size)
    error = np.square((np.asarray(model.decode(model.encode(faces))) - faces) / 2).mean((1, 2, 3))
    assert np.mean(-10 * np.log10(error)) > 35  # dB


def test_the_parents_are_the_training_images(model):
    assert model.parents.shape == (10_000, model.config.model.num_codes)
    codes = np.asarray(model.encode(drawn_faces("train", 32, model.config.data.image_size)))
    same = [len({*a} & {*b}) / len(a) for a, b in zip(codes, model.parents[:32], strict=True)]
    assert np.mean(same) > 0.98  # other processors round differently


def test_new_faces_are_of_two_parents_each_and_new(model):
    new = np.asarray(model.sample(jax.random.key(0), 32))
    known = {tuple(codes) for codes in model.parents}
    assert sum(tuple(codes) not in known for codes in new) > 28


@pytest.mark.slow
def test_the_prior_draws_new_sets_like_those_of_the_training_images(model):
    drawn = np.asarray(model.sample_prior(jax.random.key(0), 64, temperature=0.9))
    known = np.zeros((len(model.parents), len(model.codebook)), bool)
    np.put_along_axis(known, model.parents, True, axis=1)
    shared = np.array([known[:, codes].sum(1).max() for codes in drawn])
    assert np.mean(shared) > 10 and np.mean(shared == drawn.shape[1]) < 0.1


@pytest.mark.slow
def test_an_evaluation_finds_the_prior_bits_of_the_card(model, tmp_path):
    session = Session(model, dataset_from_config(model.config), tmp_path)
    found = describe_bits(session)["prior_bits"]
    assert found == pytest.approx(model.metrics["prior_bits"], abs=0.03)  # 0.08 with other orders
    card = (SHIPPED["toon_faces"] / "README.md").read_text()
    assert f"| prior_bits | {model.metrics['prior_bits']:.2f} |" in card


# The hair and its colour show in many places, so about half of the codes tell them.
@pytest.mark.parametrize(
    ("factor", "value", "most"), [("clothes", "shirt", 4), ("eyes", "wide", 4), ("hair", "bun", 8)]
)
def test_edits_change_what_is_asked_and_little_else(model, factor, value, most):
    codes = model.parents[:200]
    factors = model.labels.factors
    assert list(factors) == list(toon_faces.FACTORS)
    before = model.read_factors(codes)
    assert np.mean(before == model.labels.values[:200]) > 0.9
    column = list(factors).index(factor)
    edited = np.asarray(model.edit(codes, **{factor: value}))
    after = model.read_factors(edited)
    assert np.mean(after[:, column] == factors[factor].index(value)) > 0.97
    assert np.mean(np.delete(after, column, 1) == np.delete(before, column, 1)) > 0.97
    changed = [len({*new} - {*old}) for new, old in zip(edited, codes, strict=True)]
    assert 0 < np.mean(changed) < most


@pytest.mark.slow
def test_the_prior_picks_the_more_plausible_of_several_exchanges(model):
    a, b = model.parents[:30], model.parents[30:60]
    key, lift = jax.random.key(0), model.log_lift(model.parents)
    plain = model.recombine(a, b, key, lift=lift)
    picked = model.recombine(a, b, key, lift=lift, prior=True)
    for row, *parents in zip(np.asarray(picked).tolist(), a.tolist(), b.tolist(), strict=True):
        common, either = {*parents[0]} & {*parents[1]}, {*parents[0]} | {*parents[1]}
        assert len({*row}) == len(row) and common <= {*row} <= either
    prior = model.prior
    bits = [
        prior_bits(prior.network, prior.params, codes, jax.random.key(1), orders=2)
        for codes in (plain, picked)
    ]
    assert np.mean(bits[1]) < np.mean(bits[0]) - 1


@pytest.mark.parametrize("name", SHIPPED)
def test_the_files_are_small_and_carry_no_path(name):
    files = {path.name: path.read_bytes() for path in SHIPPED[name].iterdir()}
    weights = {f"{part}.safetensors" for part in ("model", "parents", "prior")}
    assert files.keys() == {"README.md", "config.json"} | weights
    assert sum(map(len, files.values())) < 14_000_000
    assert len(files["parents.safetensors"]) < (2 * 16 + 10) * 10_000 + 2_000
    assert not [file for file, content in files.items() if b"/home/" in content]
    config = json.loads(files["config.json"])["config"]
    paths = [config["data"]["path"], config["loss"]["perceptual_weights"]]
    assert [*paths, config["evaluate"]["features_path"]] == ["", "", ""]
