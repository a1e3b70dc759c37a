"""Files of codes with their model, which need not be trained for that."""

import dataclasses
import subprocess
import sys
import zlib

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
from tests.conftest import ROOT
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
def test_round_trip(models, tmp_path, kind):
    path, codes = tmp_path / "below" / "faces.pivq", some_codes(kind)
    codec.write(path, models[kind], codes, names())
    assert [file.name for file in path.parent.iterdir()] == ["faces.pivq"]
    found = codec.read(str(path), models[kind])
    assert found.names == tuple(names()) and found.codes.dtype == np.int32
    np.testing.assert_array_equal(found.codes, codes)
    contents = parse(path.read_bytes(), "file")
    assert len(contents.data) == 5 * models[kind].space.bytes_per_image


SCALE = """
import sys
import numpy as np
from pivq_jax import codec
from pivq_jax.config import load_config
from tests.parameters import make_model
from tests.memory import peak_memory

fields = {"data.image_size": 64, "model.patch_size": 4, "model.width": 16, "model.code_dim": 8}
fields |= {"model.num_codes": 256, "quantizer.codebook_size": 4_096}
model = make_model(load_config("image_folder:smoke").with_fields(fields))
order = np.random.default_rng(0).random((1_000, 4_096)).argsort(axis=1)
codes = np.sort(order[:, :256], axis=1)
codec.write(sys.argv[1], model, codes, [f"{i}.png" for i in range(1_000)])
np.testing.assert_array_equal(codec.read(sys.argv[1], model).codes, codes)
print(peak_memory())
"""


@pytest.mark.slow
def test_a_thousand_large_sets_take_little_memory(tmp_path):
    """All that the process takes is counted, with JAX and the model."""
    path = tmp_path / "faces.pivq"
    command = [sys.executable, "-c", SCALE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(parse(path.read_bytes(), "file").data) == 1_000 * 173
    print(f"{int(done.stdout) / 1e6:.0f} MB")
    assert int(done.stdout) < 1e9


@pytest.mark.parametrize("code", ["fixed", "prior"])
def test_in_memory(models, tmp_path, code):
    model, path = with_prior(models["matching"]), tmp_path / "faces.pivq"
    codes = some_codes("matching", 500)
    codec.write(path, model, codes, names(500), code)
    content = codec.to_bytes(model, codes, names(500), code)
    assert content == path.read_bytes()
    for images, count in ((None, 500), (1, 1), (499, 499), (501, 500)):
        found = codec.from_bytes(content, model, images)
        assert found.names == tuple(names(count))
        np.testing.assert_array_equal(found.codes, codes[:count])
    for images in (0, -1):
        with pytest.raises(ValueError, match=f"images = {images}"):
            codec.from_bytes(content, model, images)


def test_codes_by_a_prior(models, tmp_path):
    model, codes, sizes = with_prior(models["matching"]), some_codes("matching", 100), {}
    for code in ("fixed", "prior"):
        path = tmp_path / code
        codec.write(path, model, codes, names(100), code)
        np.testing.assert_array_equal(codec.read(path, model).codes, codes)
        assert parse(path.read_bytes(), "file").code == code
        sizes[code] = path.stat().st_size
    assert sizes["prior"] < sizes["fixed"] - 100  # a byte for each image
    # The other one does not need it.
    np.testing.assert_array_equal(codec.read(tmp_path / "fixed", models["matching"]).codes, codes)


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
    with pytest.raises(InputError, match="no prior to code with: train one"):
        codec.write(path, model, some_codes("matching"), names(), "prior")
    assert not path.exists()
    codec.write(path, with_prior(model), some_codes("matching", 30), names(30), "prior")
    own, other = (prior_fingerprint(with_prior(model, seed).prior.params).hex() for seed in (0, 1))
    for reader, held in ((model, "none"), (with_prior(model, seed=1), other)):
        with pytest.raises(InputError) as refused:
            codec.read(path, reader)
        assert str(refused.value) == (
            f"{path} is written with the prior with fingerprint {own}, and that of this model is"
            f" {held}: give the model with the prior that wrote it"
        )


def test_files_by_a_prior_in_training_are_read_but_not_written(models, tmp_path):
    """They could not be read once its training has gone on."""
    model, path = with_prior(models["matching"]), tmp_path / "a"
    codec.write(path, model, some_codes("matching", 30), names(30), "prior")
    model = dataclasses.replace(model, prior=model.prior.replace(finished=False))
    np.testing.assert_array_equal(codec.read(path, model).codes, some_codes("matching", 30))
    with pytest.raises(InputError, match=r"not trained to its end.*continue with pivq_jax.prior"):
        codec.write(tmp_path / "b", model, some_codes("matching", 30), names(30), "prior")
    assert not (tmp_path / "b").exists()
    codec.write(tmp_path / "b", model, some_codes("matching", 30), names(30), "fixed")


def test_a_prior_that_is_not_exact_is_refused(models, tmp_path):
    model = with_prior(models["matching"])
    model.prior.params["logits"]["kernel"] += np.float32(2000)
    with pytest.raises(InputError, match="computed alike on every machine: its logits/kernel"):
        codec.write(tmp_path / "a", model, some_codes("matching"), names(), "prior")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_codes_by_a_prior_are_for_sets(models, tmp_path, kind):
    with pytest.raises(InputError, match=f"prior code is for sets .* is {kind}: use the fixed"):
        codec.write(tmp_path / "a", models[kind], some_codes(kind), names(), "prior")
    with pytest.raises(InputError, match="'shorter' is unknown"):
        codec.write(tmp_path / "a", models[kind], some_codes(kind), names(), "shorter")
    assert not list(tmp_path.iterdir())


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


def test_another_model_is_refused(models, tiny_config, tmp_path):
    path = tmp_path / "faces.pivq"
    codec.write(path, models["matching"], some_codes("matching"), names())
    other = make_model(tiny_config, seed=1)
    with pytest.raises(InputError, match=r"fingerprint .* give the model that wrote it"):
        codec.read(path, other)
    # The weights are the same.
    with pytest.raises(InputError, match=r"matching codes .* this model is nearest"):
        codec.read(path, models["nearest"])


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_another_form_are_refused(models, tmp_path, kind):
    model, codes, path = models[kind], some_codes(kind), tmp_path / "faces.pivq"
    wrong_ones = (codes[:, :-1], codes[:-1], codes + K, codes - K, codes[0], codes[None])
    for wrong in (*wrong_ones, codes.astype(float)):
        with pytest.raises(ValueError):
            codec.write(path, model, wrong, names())
    with pytest.raises(InputError, match="no images"):
        codec.write(path, model, codes[:0], [])
    with pytest.raises(InputError, match="two images would become"):
        codec.write(path, model, codes, ["a"] * 5)
    assert not path.exists()


def test_files_that_are_none_are_refused(models, tmp_path):
    model = models["matching"]
    with pytest.raises(InputError, match="no file"):
        codec.read(tmp_path / "nothing", model)
    with pytest.raises(InputError, match="no file"):
        codec.read(tmp_path, model)
    for content in (b"", b"PIV", b"PIVQ", b"PIVQ\1", b"\x89PNG"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(InputError):
            codec.read(tmp_path / "file", model)


def test_damage_behind_a_good_checksum_is_one_error(models, tmp_path):
    path, model = tmp_path / "faces.pivq", with_prior(models["matching"])
    given = model, some_codes("matching", 60), names(60)
    fixed, prior = (parse(codec.to_bytes(*given, code), "file") for code in ("fixed", "prior"))
    cases = {
        "179 bytes of codes, not 180": fixed._replace(data=fixed.data[:-1]),
        "60 bytes of codes, not 180": fixed._replace(data=bytes(60)),
        "rank beyond the last": fixed._replace(data=b"\xff" * len(fixed.data)),
        "it begins with a zero": prior._replace(data=b"\0" + prior.data),
        "is not what the codes are written as": prior._replace(data=prior.data[:-1]),
        "is not what the codes are written as ": prior._replace(data=prior.data + b"\0"),
        "with fingerprint 00000000, and": prior._replace(prior=bytes(4)),
        "N, K and image size": fixed._replace(num_codes=2**31, codebook_size=2**32 - 1),
    }
    for words, contents in cases.items():
        path.write_bytes(pack(contents))
        with pytest.raises(InputError, match=words.strip()) as refused:
            codec.read(path, model)
        assert str(refused.value).startswith(str(path))


def test_lists_compress(models, tmp_path):
    """A thousand numbered names take a few bytes each."""
    path = tmp_path / "faces.pivq"
    codec.write(path, models["matching"], some_codes("matching", 1000), names(1000))
    contents = parse(path.read_bytes(), "file")
    listed = b"".join(name.encode() + b"\0" for name in contents.names)
    assert path.stat().st_size == 35 + len(zlib.compress(listed, 9)) + len(contents.data) + 8
