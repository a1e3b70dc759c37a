"""Files of codes with their model, which need not be trained for that."""

import dataclasses

import numpy as np
import pytest

import pivq_jax
from pivq_jax import codec
from pivq_jax.codec.container import pack, parse, prior_fingerprint
from pivq_jax.common.errors import InputError
from pivq_jax.config.sections import KINDS
from pivq_jax.inference import TrainedModel
from pivq_jax.sampling.prior import SetPrior
from tests.codec.priors import random_prior
from tests.parameters import make_model

N, K = 8, 32


@pytest.fixture(scope="module")
def models(tiny_config) -> dict[str, TrainedModel]:
    return {kind: make_model(tiny_config.with_fields({"quantizer.kind": kind})) for kind in KINDS}


def with_prior(model: TrainedModel, seed: int = 0) -> TrainedModel:
    """The same model with a prior to which, as in `some_codes`, the first entries are likely."""
    prior = random_prior(SetPrior(K, width=8, depth=1, heads=2), seed, scale=0.1)
    prior.params["logits"]["bias"] += np.linspace(6, 0, K, dtype=np.float32)
    return dataclasses.replace(model, prior=prior)


def some_codes(kind: str, count: int = 5, seed: int = 0) -> np.ndarray:
    """Codes as a model gives them, some entries much more frequent than others."""
    rng = np.random.default_rng(seed)
    if kind != "matching":
        codes = rng.integers(0, K, (count, N)).astype(np.int32)
        return np.sort(codes, 1) if kind == "nearest" else codes
    keys = np.linspace(0, 6, K) + rng.gumbel(size=(count, K))
    return np.sort(np.argsort(keys, axis=1)[:, :N].astype(np.int32), axis=1)


def names(count: int = 5) -> list[str]:
    return [f"{i}.png" for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_read_as_they_were_written(models, tmp_path, kind):
    path, codes = tmp_path / "below" / "faces.pivq", some_codes(kind)
    codec.write(path, models[kind], codes, names())
    assert [file.name for file in path.parent.iterdir()] == ["faces.pivq"]
    found = codec.read(str(path), models[kind])
    assert found.names == tuple(names()) and found.codes.dtype == np.int32
    np.testing.assert_array_equal(found.codes, codes)
    contents = parse(path.read_bytes(), "file")
    assert len(contents.data) == 5 * models[kind].space.bytes_per_image


def test_in_memory_all_or_the_first_images_are_read_and_a_prior_makes_files_shorter(models):
    model, codes, sizes = with_prior(models["matching"]), some_codes("matching", 500), {}
    for code in ("fixed", "prior"):
        content = codec.to_bytes(model, codes, names(500), code)
        assert parse(content, "file").code == code
        sizes[code] = len(content)
        for images, count in ((None, 500), (1, 1), (499, 499), (501, 500)):
            found = codec.from_bytes(content, model, images)
            assert found.names == tuple(names(count))
            np.testing.assert_array_equal(found.codes, codes[:count])
        with pytest.raises(ValueError, match="images = 0"):
            codec.from_bytes(content, model, 0)
        with pytest.raises(InputError, match="500 images, more than 499"):
            codec.from_bytes(content, model, most=499)
    assert sizes["prior"] < sizes["fixed"] - 500  # a byte for each image


@pytest.mark.parametrize("count", [1, 500])
def test_the_shorter_code_is_written(models, count):
    """Of one image, the prior's fingerprint takes more than it saves; nor does every prior fit."""
    model, codes = with_prior(models["matching"]), some_codes("matching", count)
    codes = np.sort(K - 1 - codes) if count > 1 else codes
    content = codec.to_bytes(model, codes, names(count), "prior")
    assert parse(content, "file").code == "fixed"
    assert content == codec.to_bytes(model, codes, names(count), "fixed")


def test_the_prior_must_be_the_one_that_wrote(models, tmp_path):
    path, model = tmp_path / "faces.pivq", models["matching"]
    codec.write(path, with_prior(model), some_codes("matching", 30), names(30), "prior")
    own, other = (prior_fingerprint(with_prior(model, seed).prior.params).hex() for seed in (0, 1))
    for reader, held in ((model, "none"), (with_prior(model, seed=1), other)):
        with pytest.raises(InputError, match=f"prior with fingerprint {own}, .* is {held}"):
            codec.read(path, reader)
    # One in training reads, but does not write what it could not read later.
    prior = with_prior(model).prior.replace(finished=False)
    unfinished = dataclasses.replace(model, prior=prior)
    np.testing.assert_array_equal(codec.read(path, unfinished).codes, some_codes("matching", 30))
    inexact = with_prior(model)
    inexact.prior.params["logits"]["kernel"] += np.float32(2000)
    for writer, code, words in (
        (model, "prior", "no prior to code with: train one"),
        (unfinished, "prior", "not trained to its end.*continue with pivq_jax.prior"),
        (inexact, "prior", "computed alike on every machine: its logits/kernel"),
        (models["nearest"], "prior", "prior code is for sets .* is nearest: use the fixed"),
        (model, "shorter", "'shorter' is unknown"),
    ):
        with pytest.raises(InputError, match=words):
            codec.write(tmp_path / "new", writer, some_codes("matching", 30), names(30), code)
    assert not (tmp_path / "new").exists()


def test_a_published_model_reads_the_files_of_its_run(models, tmp_path):
    model, codes = with_prior(models["matching"]), some_codes("matching", 30)
    codec.write(tmp_path / "faces.pivq", model, codes, names(30), "prior")
    model.save_pretrained(tmp_path / "published")
    again = pivq_jax.from_pretrained(tmp_path / "published")
    assert again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(codec.read(tmp_path / "faces.pivq", again).codes, codes)


def test_the_fingerprint_is_that_of_names_shapes_and_values(models):
    def fingerprint(name: str, kernel: np.ndarray) -> bytes:
        params = {name: {"kernel": kernel}}
        return dataclasses.replace(models["matching"], params=params).fingerprint

    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    # python -c: sha256(b"a.weight\n(3, 2)\n" + array([0, 3, 1, 4, 2, 5], "<f4").tobytes())
    assert fingerprint("a", kernel).hex() == "05cc26e9af116515"
    others = [
        ("a", kernel.reshape(3, 2)),
        ("b", kernel),
        ("a", np.nextafter(kernel, np.float32(9))),
    ]
    assert len({fingerprint("a", kernel), *(fingerprint(*other) for other in others)}) == 4


@pytest.mark.parametrize("kind", ["matching", "positional"])
def test_codes_of_another_form_are_refused(models, tmp_path, kind):
    model, codes, path = models[kind], some_codes(kind), tmp_path / "faces.pivq"
    for wrong in (codes[:, :-1], codes[:-1], codes + K, codes[0], codes.astype(float)):
        with pytest.raises(ValueError):
            codec.write(path, model, wrong, names())
    with pytest.raises(InputError, match="no images"):
        codec.write(path, model, codes[:0], [])
    with pytest.raises(InputError, match="two images would become"):
        codec.write(path, model, codes, ["a"] * 5)
    assert not path.exists()


def test_files_that_are_none_of_this_model_or_damaged_behind_a_good_checksum_are_refused(
    models, tiny_config, tmp_path
):
    path, model = tmp_path / "faces.pivq", with_prior(models["matching"])
    given = model, some_codes("matching", 60), names(60)
    fixed, prior = (parse(codec.to_bytes(*given, code), "file") for code in ("fixed", "prior"))
    other = make_model(tiny_config, seed=1).fingerprint
    cases = {
        "fingerprint .* give the model that wrote it": fixed._replace(fingerprint=other),
        "is of nearest codes .* this model is matching": fixed._replace(kind="nearest"),
        "N, K and image size": fixed._replace(num_codes=2**31, codebook_size=2**32 - 1),
        "179 bytes of codes, not 180": fixed._replace(data=fixed.data[:-1]),
        "rank beyond the last": fixed._replace(data=b"\xff" * len(fixed.data)),
        "it begins with a zero": prior._replace(data=b"\0" + prior.data),
        "is not what the codes are written as": prior._replace(data=prior.data[:-1]),
        "with fingerprint 00000000, and": prior._replace(prior=bytes(4)),
    }
    for words, contents in cases.items():
        path.write_bytes(pack(contents))
        with pytest.raises(InputError, match=f"^{path}.*{words}"):
            codec.read(path, model)
    for none in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError, match="no file"):
            codec.read(none, model)
    path.write_bytes(b"PIVQ\1")
    with pytest.raises(InputError, match="damaged or incomplete"):
        codec.read(path, model)
