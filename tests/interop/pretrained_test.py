"""The published form: what `save_pretrained` writes, `from_pretrained` opens anywhere."""

import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import pivq_jax
from pivq_jax.common import hub
from pivq_jax.common.errors import InputError
from pivq_jax.interop import pretrained
from pivq_jax.interop.pretrained import pack_parents, read_parents, read_prior
from pivq_jax.sampling import CodeSpace, Labels, Prior, SetPrior
from tests.conftest import stop_at_second_file

ROOT = Path(__file__).parents[2]
FACTORS = {"hair": ("none", "short", "long"), "beard": ("none", "a little", "long")}


@pytest.fixture(scope="module")
def tiny_model(tiny_model):
    assert tiny_model.parents is None  # a workdir has the images themselves
    rng = np.random.default_rng(1)
    parents = np.stack([rng.permutation(32)[:8] for _ in range(30)])
    labels = Labels(rng.integers(0, 3, (30, 2)), FACTORS)
    network, codes = SetPrior(32, width=8, depth=1, heads=2), jnp.zeros((1, 8), jnp.int32)
    weights = jax.jit(network.init)(jax.random.key(0), codes, codes > 0)["params"]
    prior = Prior(network, weights, bits=20.5)
    return dataclasses.replace(tiny_model, parents=parents, labels=labels, prior=prior)


@pytest.fixture(scope="module")
def published(tiny_model, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("published") / "faces"
    tiny_model.save_pretrained(directory)
    return directory


@pytest.fixture
def copy(published, tmp_path) -> Path:
    """The published model, to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "copy"))


def test_it_knows_what_the_run_knew(tiny_model, tiny_run, published):
    model = pivq_jax.from_pretrained(str(published))
    assert (model.step, model.progress) == (tiny_model.step, tiny_model.progress)
    assert model.metrics == tiny_run.metrics
    config = tiny_model.config.to_dict()
    assert config["data"]["path"] != ""
    config["data"]["path"] = ""  # stays at home
    assert model.config.to_dict() == config
    np.testing.assert_array_equal(model.parents, np.sort(tiny_model.parents))
    np.testing.assert_array_equal(model.labels.values, tiny_model.labels.values)
    assert model.labels.factors == FACTORS
    edited = (m.edit(np.sort(tiny_model.parents), hair="long") for m in (model, tiny_model))
    np.testing.assert_array_equal(*edited)
    assert (model.prior.network, model.prior.bits) == (tiny_model.prior.network, 20.5)
    for ours, theirs in ((model, tiny_model), (model.prior, tiny_model.prior)):
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_a_model_may_be_published_without_parents_and_prior(tiny_model, copy):
    alone = dataclasses.replace(tiny_model, parents=None, labels=None, prior=None)
    alone.save_pretrained(copy)  # over one with all
    assert not (copy / "parents.safetensors").exists()
    assert not (copy / "prior.safetensors").exists()
    assert "model.sample" not in (copy / "README.md").read_text()
    model = pivq_jax.from_pretrained(copy)
    assert model.parents is model.labels is model.prior is None
    with pytest.raises(ValueError, match="has no labels"):
        model.edit(np.arange(8)[None], hair="long")


def test_labels_of_a_factor_with_too_many_values_are_left_out_alone(tiny_model, copy):
    names = {"identity": [str(i) for i in range(300)], **FACTORS}
    values = np.column_stack([np.arange(30), tiny_model.labels.values])
    dataclasses.replace(tiny_model, labels=Labels(values, names)).save_pretrained(copy)
    model = pivq_jax.from_pretrained(copy)
    assert model.labels.factors == FACTORS
    np.testing.assert_array_equal(model.labels.values, tiny_model.labels.values)


def test_arrays_of_another_memory_layout_are_the_same_in_files(tiny_model, tmp_path):
    labels = tiny_model.labels._replace(values=np.asfortranarray(tiny_model.labels.values))
    weights = jax.tree.map(np.asfortranarray, tiny_model.prior.params)
    prior = tiny_model.prior.replace(params=weights)
    parents = np.asfortranarray(tiny_model.parents)
    model = dataclasses.replace(tiny_model, parents=parents, labels=labels, prior=prior)
    model.save_pretrained(tmp_path)
    opened = pivq_jax.from_pretrained(tmp_path)
    np.testing.assert_array_equal(opened.labels.values, labels.values)
    np.testing.assert_array_equal(opened.parents, np.sort(parents))
    jax.tree.map(np.testing.assert_array_equal, opened.prior.params, weights)


@pytest.mark.parametrize("fault", ["full disk", "metrics"])
def test_a_failed_write_keeps_the_model_that_was_there(tiny_model, copy, monkeypatch, fault):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    model, expected = tiny_model, OSError
    if fault == "metrics":
        model, expected = dataclasses.replace(model, metrics={"psnr": float("nan")}), ValueError
    else:
        written: list[Path] = []

        def fill(path: Path) -> None:
            written.append(path)
            if len(written) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("pivq_jax.common.files.sync", fill)
    with pytest.raises(expected):
        model.save_pretrained(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_parents_and_a_prior_are_never_beside_other_weights(tiny_model, copy, monkeypatch):
    stop_at_second_file(monkeypatch, copy)
    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(tiny_model, step=7).save_pretrained(copy)
    monkeypatch.undo()
    opened = pivq_jax.from_pretrained(copy)
    assert opened.step == 7 and opened.parents is None and opened.prior is None


def test_the_directory_is_what_the_hub_expects(published, tiny_run):
    assert {path.name for path in published.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "parents.safetensors",
        "prior.safetensors",
    }
    assert json.loads((published / "config.json").read_text())["config"]["name"]
    card = (published / "README.md").read_text()
    assert f"| psnr | {tiny_run.metrics['psnr']:.4g} |" in card
    assert str(tiny_run.arguments[1].split("=")[-1]) not in card  # the data's folder
    assert "license" not in card  # that of the images is not known


def test_the_card_of_drawn_faces_names_their_licence(tiny_model, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    config = tiny_model.config.with_fields({"data.name": "toon_faces"})
    dataclasses.replace(tiny_model, config=config).save_pretrained(tmp_path)
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert "Johan Melin" in card.text and "licenses/by/4.0" in card.text


def test_the_hub_can_read_the_card(published, tiny_run):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = huggingface_hub.ModelCard.load(published / "README.md")
    assert card.data.library_name == "pivq_jax"
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    numbers = {n: v for n, v in tiny_run.metrics.items() if isinstance(v, int | float)}
    for name in ("step", "train_seconds", "train_images_per_second", "sample_images_per_second"):
        numbers.pop(name)
    assert measured == numbers and "psnr" in measured and "attributes" not in measured


def test_metrics_of_other_weights_are_left_out(tiny_run, tmp_path):
    (tmp_path / "config.json").write_text((tiny_run.workdir / "config.json").read_text())
    (tmp_path / "checkpoints").symlink_to(tiny_run.workdir / "checkpoints")
    (tmp_path / "metrics.json").write_text(json.dumps({**tiny_run.metrics, "step": 150}))
    model = pivq_jax.load(tmp_path)
    model.save_pretrained(tmp_path / "published")
    assert model.metrics == {}
    assert "Test split" not in (tmp_path / "published" / "README.md").read_text()


def test_saving_over_something_else_or_far_away_is_refused(tiny_model, tiny_run, tmp_path):
    (file := tmp_path / "faces").write_text("precious")
    before = (tiny_run.workdir / "config.json").read_bytes()
    for place, message in (
        (file, "is a file"),
        (tiny_run.workdir, "holds a run: give another directory"),
        ("gs://bucket/faces", "gs://bucket/faces is in remote storage: use a local"),
    ):
        with pytest.raises(InputError, match=message):
            tiny_model.save_pretrained(place)
    assert file.read_text() == "precious"
    assert (tiny_run.workdir / "config.json").read_bytes() == before


def test_no_path_of_this_machine_is_published(tiny_model, tmp_path):
    paths = {"loss.perceptual_weights": "/home/me/w", "evaluate.features_path": "/home/me/f"}
    config = tiny_model.config.with_fields(paths)
    dataclasses.replace(tiny_model, config=config).save_pretrained(tmp_path)
    written = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(written) == 5 and not any(b"/home/me" in content for content in written)


def test_a_hub_id_is_fetched(published, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def fetch(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(published)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert pivq_jax.from_pretrained("somebody/faces").step == 160
    files = ["model.safetensors", "parents.safetensors", "prior.safetensors", "config.json"]
    assert asked == [("somebody/faces", {"allow_patterns": files})]


@pytest.mark.slow
def test_a_hub_id_offline_is_one_clear_error(tmp_path):
    pytest.importorskip("huggingface_hub")
    code = (
        "import pivq_jax\n"
        "from pivq_jax.common.errors import InputError\n"
        "try:\n    pivq_jax.from_pretrained('somebody/faces')\n"
        "except InputError as error:\n    print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "somebody/faces is not a directory here and could not be fetched from the hub" in line


def test_a_hub_id_without_the_hub_library_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="needs huggingface_hub: pip install huggingface_hub"):
        pivq_jax.from_pretrained("somebody/faces")


@pytest.mark.parametrize(
    "where, message",
    [
        (
            "no such directory",
            r"no directory here, no model of the package \(.*toon_faces.*\) and no",
        ),
        (".", "holds no model.safetensors"),
    ],
)
def test_what_is_no_model_is_refused(where, message):
    with pytest.raises(InputError, match=message):
        pivq_jax.from_pretrained(where)


def test_a_run_and_a_published_model_are_told_apart(published, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="is a run, no published model: give it as --workdir"):
        pivq_jax.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a published model, no run: give it as --pretrained"):
        pivq_jax.load(published)


def test_a_directory_comes_before_the_package_and_the_package_before_the_hub(
    published, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert pivq_jax.from_pretrained("toon_faces").config.name == "toon_faces"
    shutil.copytree(published, tmp_path / "toon_faces")
    assert pivq_jax.from_pretrained("toon_faces").config.name == "image_folder_smoke"


def test_a_file_of_another_format_is_refused(copy):
    path = copy / "model.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["pivq_jax"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert description["format_version"] == 1
    assert json.loads((copy / "config.json").read_text()) == description
    description = {"format_version": 2, "weights": "elsewhere"}
    safetensors.numpy.save_file(arrays, path, {"pivq_jax": json.dumps(description)})
    with pytest.raises(InputError, match=r"format_version = 2, and this version .* reads 1: use"):
        pivq_jax.from_pretrained(copy)


SPACE = CodeSpace(8, 32)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"codes": np.zeros((3, 8), np.float32)}, "is not of its model"),
        ({"codes": np.zeros((3, 7), np.uint8)}, "is not of its model"),
        ({"codes": np.zeros((3, 8), np.uint8)}, "is not of its model"),  # they repeat
        ({"codes": np.full((3, 8), 32, np.uint8)}, "is not of its model"),  # beyond the last
        ({"codes": np.zeros((3, 8), np.uint8), "sets": np.zeros((3, 3), np.uint8)}, "does not"),
        ({"sets": np.zeros((3, 3), np.uint8)}, "does not hold the codes"),
        ({"codes": np.zeros((0, 8), np.uint8)}, "does not hold the codes"),
    ],
)
def test_damaged_parents_are_refused(tmp_path, arrays, message):
    safetensors.numpy.save_file(arrays, tmp_path / "parents")
    with pytest.raises(InputError, match=message):
        read_parents(tmp_path / "parents", SPACE)


def test_parents_of_a_large_model_are_written_and_read_in_seconds(tmp_path):
    """With ranks, 100 images of celeba_hq took a minute."""
    rng, space, path = np.random.default_rng(0), CodeSpace(4096, 131_072), tmp_path / "parents"
    codes = np.sort([rng.choice(131_072, 4096, replace=False) for _ in range(100)])
    begin = time.process_time()
    path.write_bytes(pack_parents(codes, space))
    np.testing.assert_array_equal(read_parents(path, space)[0], codes)
    assert time.process_time() - begin < 20


def test_more_parents_than_can_be_read_are_refused_before_anything_is_written(
    tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrained, "MOST_CODES", 87)
    message = "30 parents hold 240 codes, more than 87: give at most 10"
    with pytest.raises(InputError, match=message):
        tiny_model.save_pretrained(tmp_path / "faces")
    assert not (tmp_path / "faces").exists()
    some = dataclasses.replace(tiny_model, parents=tiny_model.parents[:10], labels=None)
    some.save_pretrained(tmp_path / "faces")
    assert len(pivq_jax.from_pretrained(tmp_path / "faces").parents) == 10


@pytest.mark.parametrize(
    "shape, value, factors",
    [
        ((30, 2), 0, None),
        ((30, 2), 0, [1]),
        ((29, 2), 0, FACTORS),
        ((30, 3), 0, FACTORS),
        ((30, 2), 3, FACTORS),  # beyond the last value
    ],
)
def test_damaged_labels_are_refused(tmp_path, shape, value, factors):
    codes = np.tile(np.arange(8, dtype=np.uint8), (30, 1))
    arrays = {"codes": codes, "labels": np.full(shape, value, np.uint8)}
    metadata = {} if factors is None else {"pivq_jax_factors": json.dumps(factors)}
    safetensors.numpy.save_file(arrays, tmp_path / "parents", metadata)
    with pytest.raises(InputError, match="is not of its model"):
        read_parents(tmp_path / "parents", SPACE)


@pytest.mark.parametrize(
    "changes, added, message",
    [
        ({"width": 16}, 0.0, "does not hold the weights"),
        ({"width": 10**9}, 0.0, "is no prior"),
        ({"depth": None}, 0.0, "is no prior"),
        ({"bits": 10**400}, 0.0, "is no prior"),
        ({"bits": math.inf}, 0.0, "is no prior"),
        ({}, np.nan, "does not hold the weights"),
    ],
)
def test_a_damaged_prior_is_refused(published, tmp_path, changes, added, message):
    held = {"width": 8, "depth": 1, "heads": 2, "bits": 1.0} | changes
    arrays = safetensors.numpy.load_file(published / "prior.safetensors")
    arrays = {name: array + np.float32(added) for name, array in arrays.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "prior", {"pivq_jax_prior": json.dumps(held)})
    with pytest.raises(InputError, match=message):
        read_prior(tmp_path / "prior", SPACE)


@pytest.fixture
def repository(monkeypatch) -> set[str]:
    """The names of the files of somebody/faces on the hub."""
    huggingface_hub, held = pytest.importorskip("huggingface_hub"), set[str]()

    def upload_folder(
        *, repo_id: str, folder_path: Path, allow_patterns: list[str], delete_patterns: list[str]
    ) -> str:
        assert repo_id == "somebody/faces"
        held.difference_update(delete_patterns)
        held.update({path.name for path in folder_path.iterdir()} & {*allow_patterns})
        return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, *, exist_ok: None)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    return held


def test_a_model_is_uploaded_and_parents_and_prior_of_an_earlier_upload_are_deleted(
    copy, repository
):
    (copy / "notes.txt").write_text("private")
    assert hub.upload(copy, "somebody/faces") == "https://hub/somebody/faces/commit/1"
    needed, more = {"README.md", "config.json", "model.safetensors"}, ("parents", "prior")
    assert repository == needed | {f"{name}.safetensors" for name in more}
    for name in more:
        (copy / f"{name}.safetensors").unlink()
    hub.upload(copy, "somebody/faces")
    assert repository == needed


@pytest.mark.parametrize("kind", [OSError, RuntimeError, KeyError])
def test_a_refusal_of_the_hub_is_one_clear_error(copy, repository, monkeypatch, kind):
    error = type("Refused", (kind,), {"__str__": lambda self: "401 Client Error\n\nNo token"})

    def refuse(name: str, *, exist_ok: bool) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.create_repo", refuse)
    message = r"could not be uploaded to somebody/faces \(401 Client Error No token\): check"
    with pytest.raises(InputError, match=message):
        hub.upload(copy, "somebody/faces")
    with pytest.raises(InputError, match="faces is no hub id: give one such as owner/name"):
        hub.upload(copy, "faces")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="uploading to somebody/faces needs huggingface_hub"):
        hub.upload(copy, "somebody/faces")
