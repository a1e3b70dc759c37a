"""`python -m pivq_jax.convert`: a run to a safetensors file and back."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

import pivq_jax
from pivq_jax import convert
from pivq_jax.common.errors import InputError
from pivq_jax.common.hub import shipped_models
from pivq_jax.inference.opening import initial_arrays
from pivq_jax.interop import pretrained
from pivq_jax.interop.torch_model import PIVQ as Reference
from pivq_jax.training.build import dataset_from_config


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.safetensors"
    assert convert.main([f"--from={tiny_run.workdir}", f"--to={path}"]) == 0
    return path


def contents(path: Path) -> tuple[dict, dict]:
    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def everything(directory: Path) -> dict[str, bytes | None]:
    """Every file and folder below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def refused(capsys, *arguments: str) -> str:
    """The one line of a refusal."""
    assert convert.main(list(arguments)) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == "" and line.startswith("error: ")
    return line


def test_there_and_back(tiny_model, exported, tmp_path):
    workdir, again = tmp_path / "deep" / "run", tmp_path / "again.safetensors"
    assert convert.main([f"--from={exported}", f"--to={workdir}"]) == 0
    assert convert.main([f"--from={workdir}", f"--to={again}"]) == 0
    first, second = contents(exported), contents(again)
    assert {n: a.tobytes() for n, a in first[0].items()} == {
        n: a.tobytes() for n, a in second[0].items()
    }
    assert os.listdir(workdir.parent) == ["run"]  # nothing temporary is left

    ours, theirs = pivq_jax.load(workdir), tiny_model
    assert (ours.step, ours.progress) == (theirs.step, theirs.progress)
    assert ours.config.data.path == ""  # no file says which folder is read
    assert ours.config == theirs.config.with_fields({"data.path": ""})
    for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.slow
def test_a_run_from_before_its_codebook_is_trained_goes_there_and_back(interrupted, tmp_path):
    early, workdir = interrupted["workdir"].with_name("early"), tmp_path / "run"
    assert convert.main([f"--from={early}", f"--to={tmp_path / 'early.safetensors'}"]) == 0
    assert convert.main([f"--from={tmp_path / 'early.safetensors'}", f"--to={workdir}"]) == 0
    ours, theirs = pivq_jax.load(workdir), pivq_jax.load(early)
    assert ours.step == theirs.step < ours.config.init_step
    assert ours.progress["codebook"] == "fitted"
    np.testing.assert_array_equal(ours.codebook, theirs.codebook)


@pytest.mark.slow
def test_a_converted_run_serves_every_mode_and_is_at_its_end(
    commands, tiny_run, exported, tmp_path
):
    workdir = tmp_path / "run"
    convert.workdir_from_file(exported, workdir)
    done = commands.run(*tiny_run.arguments[:-1], f"--workdir={workdir}")
    assert done.code == 0, done.stderr
    assert "resuming from step 160" in done.stdout and "trained in" not in done.stdout
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["psnr"] == tiny_run.metrics["psnr"]


@pytest.mark.slow
def test_a_file_written_in_pytorch_becomes_a_run(tiny_config, tmp_path):
    config = tiny_config.to_dict()
    reference, path = Reference(config), tmp_path / "theirs.safetensors"
    metadata = {"pivq_jax": json.dumps({"config": config})}
    safetensors.torch.save_file(reference.state_dict(), path, metadata)
    convert.workdir_from_file(path, tmp_path / "run")
    model = pivq_jax.load(tmp_path / "run")
    assert model.step == config["train"]["steps"]
    np.testing.assert_array_equal(model.codebook, reference.quantizer.codebook.detach())


def test_pytorch_opens_the_file(exported):
    metadata = json.loads(contents(exported)[1]["pivq_jax"])
    Reference(metadata["config"]).load_state_dict(safetensors.torch.load_file(exported))
    assert metadata["step"] == 160 and metadata["metrics"]["psnr"] > 0


@pytest.fixture
def without_data(tiny_run, tmp_path) -> Path:
    """A copy of the run whose training images are no longer where they were."""
    workdir = Path(shutil.copytree(tiny_run.workdir, tmp_path / "run"))
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone")
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


def test_data_that_has_moved_is_given_and_other_data_is_warned_of(
    capsys, without_data, small_folder, tmp_path
):
    workdir = without_data
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert "gone" in refused(capsys, f"--from={workdir}", f"--to={tmp_path / 'out'}")
    moved = shutil.copytree(small_folder, tmp_path / "moved")
    arguments = [f"--from={workdir}", f"--to={tmp_path / 'out'}", f"--data_path={moved}"]
    assert convert.main(arguments) == 0 and "warning" not in capsys.readouterr().out
    assert pivq_jax.from_pretrained(tmp_path / "out").metrics == metrics
    (moved / "0.png").unlink()
    assert convert.main(arguments) == 0
    assert "warning: these are not the images" in capsys.readouterr().out
    # Figures measured on other images are not those of the model.
    (workdir / "metrics.json").write_text(json.dumps(metrics | {"data": "others"}))
    assert pivq_jax.load(workdir).metrics == {}


@pytest.mark.parametrize("given", [("--to=model.safetensors",), ("--push=someone/faces",)])
def test_a_place_for_data_that_is_not_read_is_refused(capsys, monkeypatch, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(convert.hub, "check_upload", lambda name: None)
    line = refused(capsys, "--from=toon_faces", "--data_path=.", *given)
    assert "--data_path is for a run whose training images are read" in line
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "place, message",
    [("file/run", "file is a file: choose another --to"), ("cv/[b]", "contains one of [ * ?")],
)
def test_a_place_that_cannot_hold_a_run_is_refused(capsys, exported, tmp_path, place, message):
    (tmp_path / "file").write_text("in the way")
    line = refused(capsys, f"--from={exported}", f"--to={tmp_path / place}")
    assert message in line and "--to" in line and os.listdir(tmp_path) == ["file"]


def test_what_a_killed_conversion_left_is_not_taken_for_one_s_own(
    exported, tiny_run, tiny_model, tmp_path
):
    left = tmp_path / ".run.incomplete"  # of another model, at the same step
    shutil.copytree(tiny_run.workdir / "checkpoints" / "160", left / "checkpoints" / "160")
    arrays, metadata = contents(exported)
    doubled = {name: 2 * array for name, array in arrays.items()}
    safetensors.numpy.save_file(doubled, tmp_path / "other.safetensors", metadata)
    convert.workdir_from_file(tmp_path / "other.safetensors", tmp_path / "run")
    codebook = pivq_jax.load(tmp_path / "run").codebook
    np.testing.assert_array_equal(codebook, 2 * tiny_model.codebook)
    assert sorted(os.listdir(tmp_path)) == ["other.safetensors", "run"]


def refused_file(capsys, tmp_path: Path, arrays: dict, description: dict) -> str:
    """The one line about a file that shall become a run; nothing is written."""
    path = tmp_path / "bad.safetensors"
    safetensors.numpy.save_file(arrays, path, {"pivq_jax": json.dumps(description)})
    line = refused(capsys, f"--from={path}", f"--to={tmp_path / 'run'}")
    assert str(path) in line and os.listdir(tmp_path) == [path.name]
    return line


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"config": "abc"}, "does not say what model it is"),
        ({"config": {"model": {}}}, "describes no model"),
        ({"step": 60}, "codebook at step 60, over"),
        ({"step": "x"}, "step = 'x' must be a number"),
        ({"progress": None}, "progress = None must be a JSON object"),
        ({"progress": {"train_seconds": "x"}}, "the times in progress are no numbers"),
        ({"progress": {"cost": {"x": 1}}}, "the times in progress are no numbers"),
    ],
)
def test_a_file_with_a_wrong_description_is_refused(capsys, exported, tmp_path, fields, message):
    arrays, metadata = contents(exported)
    description = json.loads(metadata["pivq_jax"]) | fields
    assert message in refused_file(capsys, tmp_path, arrays, description)


def test_a_file_with_a_part_of_a_config_becomes_no_run(capsys, exported, tmp_path):
    arrays, metadata = contents(exported)
    description = json.loads(metadata["pivq_jax"])
    del description["config"]["optimizer"]
    assert "optimizer is missing" in refused_file(capsys, tmp_path, arrays, description)


def test_a_file_with_wrong_arrays_is_refused(capsys, exported, tmp_path):
    arrays, metadata = contents(exported)
    description = json.loads(metadata["pivq_jax"])
    arrays["encoder.norm.weight"][0], arrays["decoder.codes.bias"][-1] = np.nan, np.inf
    line = refused_file(capsys, tmp_path, arrays, description)
    assert "holds NaN or infinity in decoder.codes.bias, encoder.norm.weight" in line
    arrays["encoder.norm.weight"] = arrays["encoder.norm.weight"][:-1].copy()
    arrays["decoder.mystery"] = arrays.pop("decoder.codes.bias")
    faults = "decoder.codes.bias is missing; decoder.mystery is unexpected; encoder.norm.weight has"
    line = refused_file(capsys, tmp_path, arrays, description)
    assert f"{faults} shape (15,), not (16,)" in line


def test_a_truncated_file_is_refused_and_the_target_untouched(capsys, exported, tmp_path):
    path, target = tmp_path / "bad.safetensors", tmp_path / "empty"
    path.write_bytes(exported.read_bytes()[:-100])
    target.mkdir()
    line = refused(capsys, f"--from={path}", f"--to={target}")
    assert "not a whole safetensors file" in line and not any(target.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from=run"], "give --to=TARGET or --push=OWNER/NAME"),
        (["--from=run", "--push=faces"], "faces is no hub id"),
        (["--from=empty", "--push=me/faces"], "empty holds no model.safetensors"),
        (["--from=empty", "--to=a.safetensors", "--push=me/faces"], "uploads a published model"),
        (["--from=a.safetensors", "--to=run", "--push=me/faces"], "uploads a published model"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(capsys, tmp_path, monkeypatch, arguments, message):
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    try:
        assert convert.main(arguments) == 2
    except SystemExit as refusal:  # by the parser
        assert refusal.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert os.listdir(tmp_path) == ["empty"]


@pytest.mark.slow
def test_as_many_parents_are_published_as_a_model_may_have(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "MOST_CODES", 87)  # of 8 codes each
    assert convert.main([f"--from={tiny_run.workdir}", f"--to={tmp_path / 'faces'}"]) == 0
    model, run = pivq_jax.from_pretrained(tmp_path / "faces"), pivq_jax.load(tiny_run.workdir)
    train = dataset_from_config(run.config).train
    images = np.stack([train[i]["image"] for i in range(10)]) / np.float32(127.5) - 1
    np.testing.assert_array_equal(model.parents, run.encode(images))


def test_a_published_model_is_uploaded(capsys, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(convert.hub, "check_upload", lambda name: None)
    monkeypatch.setattr(convert.hub, "upload", lambda *given: f"https://hub {given}")
    monkeypatch.setattr(pretrained, "read_pretrained", lambda directory: None)
    assert convert.main([f"--from={tmp_path}", "--push=me/faces"]) == 0
    assert capsys.readouterr().out == f"uploaded to https://hub {(tmp_path, 'me/faces')}\n"


def test_a_model_of_the_package_becomes_a_file_and_a_folder_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_models()["toon_faces"]
    arrays, metadata = contents(shipped / "model.safetensors")
    for name in ("toon_faces", str(shipped)):
        assert convert.main([f"--from={name}", "--to=faces.safetensors"]) == 0
        found, described = contents(Path("faces.safetensors"))
        assert {n: a.tobytes() for n, a in found.items()} == {
            n: a.tobytes() for n, a in arrays.items()
        }
        assert json.loads(described["pivq_jax"]) == json.loads(metadata["pivq_jax"])
    assert convert.main(["--from=toon_faces", "--to=faces"]) == 0
    for file in ("model", "parents", "prior"):
        found, expected = (
            contents(folder / f"{file}.safetensors")[0] for folder in (Path("faces"), shipped)
        )
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert pivq_jax.from_pretrained("faces").labels is not None


def test_a_model_of_the_package_is_uploaded_by_its_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(convert.hub, "check_upload", lambda name: None)
    monkeypatch.setattr(convert.hub, "upload", lambda folder, name: f"https://hub {folder.name}")
    assert convert.main(["--from=toon_faces", "--push=me/faces"]) == 0
    assert capsys.readouterr().out == "uploaded to https://hub toon_faces\n"


def test_a_run_in_which_weights_were_kept_is_still_a_run(tiny_run, tiny_config, tmp_path):
    workdir, target = Path(shutil.copytree(tiny_run.workdir, tmp_path / "run")), tmp_path / "new"
    (workdir / "model.safetensors").touch()  # could not be read
    assert convert.main([f"--from={workdir}", f"--to={target}.safetensors"]) == 0
    assert initial_arrays(str(workdir), tiny_config)
    with pytest.raises(InputError, match="is a run, no published model"):
        pivq_jax.from_pretrained(workdir)


def test_an_existing_run_is_never_written_to(capsys, exported, tiny_run, tmp_path):
    target = tmp_path / "run"
    shutil.copytree(tiny_run.workdir, target)
    before = everything(target)
    assert "exists: give a new --to" in refused(capsys, f"--from={exported}", f"--to={target}")
    assert everything(target) == before


@pytest.mark.parametrize(
    "source, target, message",
    [
        ("missing.safetensors", "run", "is not a file: give a file of"),
        ("model.pt", "run", "not named *.safetensors"),
        ("missing", "model.safetensors", "is no workdir"),
        ("missing", "out", "no published model and no model of the package (toon_faces): give"),
        ("empty", "model.safetensors", "holds no run"),
    ],
)
def test_a_wrong_source_is_refused(capsys, tmp_path, source, target, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pt").write_bytes(b"pickle")
    before = everything(tmp_path)
    line = refused(capsys, f"--from={tmp_path / source}", f"--to={tmp_path / target}")
    assert message in line and everything(tmp_path) == before


@pytest.mark.parametrize(
    "source, target",
    [("model.safetensors", "gs://b/run"), ("gs://b/model.safetensors", "run"), ("run", "s3://b/x")],
)
def test_what_is_written_or_read_as_a_file_is_local(capsys, tmp_path, monkeypatch, source, target):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, f"--from={source}", f"--to={target}")
    assert "is in remote storage: use a local path" in line and not any(tmp_path.iterdir())


def test_a_failed_export_keeps_the_file_that_was_there(capsys, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    refused(capsys, f"--from={tmp_path}", f"--to={tmp_path / 'model.safetensors'}")
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"
