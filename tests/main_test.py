"""The command line: every mode makes its files, every mistake gets one line."""

import json
import math
import os
import re
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from pivq_jax import modes
from pivq_jax.common.lock import DirectoryLock
from pivq_jax.main import MODES

CODES, ENTRIES = 32, 512  # of image_folder.py


def test_training_makes_everything(trained):
    names = {path.name for path in trained.workdir.iterdir()}
    pictures = {"samples.png", "parents.png", "interpolations.png"}
    others = {"config.json", "checkpoints", "log.jsonl", "metrics.json", "report", "metrics.jsonl"}
    assert pictures | others <= names
    numbers = [value for value in trained.metrics.values() if isinstance(value, int | float)]
    assert len(numbers) > 20 and all(math.isfinite(value) for value in numbers)
    assert {"tensorboard", "pictures"} <= names and not [n for n in names if n.endswith(".tmp")]
    assert [p.name for p in (trained.workdir / "pictures").iterdir()] == ["step_000050.png"]
    for name in pictures:
        with Image.open(trained.workdir / name) as picture:
            assert picture.mode == "RGB" and min(picture.size) >= 64
            assert np.asarray(picture).std() > 1


def test_the_corrupt_file_is_named_and_skipped_once_and_no_other(trained):
    skipped = [line for line in trained.finished.stderr.splitlines() if "skipped: " in line]
    assert len(skipped) == 1 and "123.png" in skipped[0]
    assert re.search(r"\b1 of \d+ images of .*my faces skipped", trained.finished.stderr)


def test_the_config_is_kept_as_resolved(trained, mixed_folder):
    config = json.loads((trained.workdir / "config.json").read_text())
    assert config["data"]["path"] == str(mixed_folder)
    assert config["name"] == "image_folder_smoke" and config["train"]["steps"] == 60


def test_console_lines(trained):
    pattern = r"step +\d+/60  loss \d+\.\d{4}  PSNR +\d+\.\d\d dB +\d+\.\d images/s  ETA \d+:\d\d"
    lines = [line for line in trained.finished.stdout.splitlines() if line.startswith("step ")]
    assert sum(re.fullmatch(pattern, line) is not None for line in lines) == 6
    [evaluated] = (line for line in lines if "  evaluated: psnr " in line)
    assert evaluated.startswith("step     40/60 ") and "lpips" in evaluated
    assert [line for line in lines if "compiling" in line] == [
        "step      0: compiling the quantized training step"
    ]


def test_a_check_says_that_it_is_no_model_and_an_evaluation_what_to_open(trained):
    lines = trained.finished.stdout.splitlines()
    assert "is a check that everything runs, not a model" in lines[-1]
    page, figures = (trained.workdir / name for name in ("report/index.html", "metrics.json"))
    assert f"open {page}; all figures are in {figures}" in lines
    assert next(line for line in lines if "PSNR, dB" in line).split()[-1] == (
        f"{trained.metrics['psnr']:.3g}"
    )


@pytest.mark.slow
def test_training_again_does_not_train_again(commands, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained.workdir, workdir)
    done = commands.run(f"--workdir={workdir}")  # which is enough
    assert done.code == 0, done.stderr
    assert "loss" not in done.stdout and "evaluating step 60" in done.stdout
    log = (trained.workdir / "log.jsonl").read_bytes()
    assert (workdir / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    "mode, names",
    [
        ("evaluate", ["metrics.json"]),
        pytest.param("sample", ["samples.png", "parents.png"], marks=pytest.mark.slow),
        pytest.param("interpolate", ["interpolations.png"], marks=pytest.mark.slow),
    ],
)
def test_each_mode_makes_its_files_again(commands, trained, tmp_path, mode, names):
    workdir = tmp_path / "run"
    shutil.copytree(trained.workdir, workdir)
    for name in names:
        (workdir / name).unlink()
    with DirectoryLock(workdir):  # beside a training that goes on
        before = {path.name for path in workdir.iterdir()}
        done = commands.run(f"--workdir={workdir}", f"--mode={mode}")
        made = {path.name for path in workdir.iterdir()} - before
    assert done.code == 0, done.stderr
    assert made == set(names)
    for name in names:
        if name.endswith(".png"):
            assert Image.open(workdir / name).size == Image.open(trained.workdir / name).size


def test_reconstruct_writes_pictures_and_codes_of_every_readable_file(
    commands, trained, trained_model, faces, tmp_path
):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deeper" / "still").mkdir(parents=True)
    Image.fromarray(faces[0]).save(source / "a.png")
    Image.fromarray(faces[1]).resize((90, 70)).save(source / "deeper" / "b.jpg")
    Image.fromarray(faces[2]).convert("L").save(source / "deeper" / "still" / "a.png")
    (source / "corrupt.png").write_bytes(b"no image")
    (source / "notes.txt").write_text("not meant")
    places = [f"--input={source}", f"--output={target}"]
    done = commands.run(*trained.arguments, "--mode=reconstruct", *places)
    assert done.code == 0, done.stderr
    skipped = [line for line in done.stdout.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 1 and "corrupt.png" in skipped[0]
    own = f"{trained.metrics['psnr']:.1f} dB on the test images of the model"
    assert re.search(rf"^mean PSNR \d+\.\d dB; {own}$", done.stdout, re.MULTILINE)

    codes = json.loads((target / "codes.json").read_text())
    assert set(codes) == {"a.png", "deeper/b.jpg", "deeper/still/a.png"}
    written = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert written == {"codes.json", *(name.replace(".jpg", ".png") for name in codes)}
    for name, row in codes.items():
        assert len(row) == CODES and row == sorted(set(row))
        assert row[0] >= 0 and row[-1] < ENTRIES
        picture = np.asarray(Image.open(target / name.replace(".jpg", ".png")))
        decoded = np.asarray(trained_model.decode(np.array([row])))[0]
        expected = (decoded.astype(np.float64) + 1) * 127.5
        assert picture.shape == (32, 32, 3) and np.max(np.abs(picture - expected)) < 0.51


def assert_refused(done, *words: str) -> None:
    lines = done.stderr.splitlines()
    assert done.code == 2, done
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert not done.stdout


def test_a_workdir_in_which_another_process_trains_is_refused(commands, trained):
    with DirectoryLock(trained.workdir):
        before = {path: path.stat().st_mtime_ns for path in trained.workdir.rglob("*")}
        done = commands.run(*trained.arguments)
        for path, changed in before.items():
            assert path.stat().st_mtime_ns == changed or path == trained.workdir, path
    assert_refused(done, f"process {os.getpid()} on {os.uname().nodename} for 0:00:", "--workdir")


FOLDER = "--config=configs/image_folder.py:smoke"
WRONG = {
    "unknown field": (
        [FOLDER, "--config.model.widht=3"],
        ["config.model.widht", "did you mean --config.model.width?", "pivq_jax.config.table"],
    ),
    "nothing alike": ([FOLDER, "--config.zzz=3"], ["no field --config.zzz (`python -m"]),
    "a field without its section": (
        [FOLDER, "--count=3"],
        ["'count'", "did you mean --config.sample.count?"],
    ),
    "a field without config": ([FOLDER, "--train.steps=3"], ["mean --config.train.steps?"]),
    "a field of another model": (
        ["--pretrained=toon_faces", "--mode=sample", "--config.model.width=32"],
        ["with model.width = 128: leave out --config and such fields"],
    ),
    "a field of no model": (
        ["--pretrained=no_faces", "--mode=sample", "--config.sample.count=3"],
        ["no_faces is no directory here"],
    ),
    "a field of no run": (
        ["--workdir=/no/run", "--mode=sample", "--config.sample.count=3"],
        ["--config.sample.count needs --config: a name, a file or the workdir of a run"],
    ),
    "wrong type": (
        [FOLDER, "--config.train.steps=many"],
        ["error: --config.train.steps=many must be a whole number"],
    ),
    "fraction for an integer": (
        [FOLDER, "--config.train.steps=1.5"],
        ["--config.train.steps=1.5 must be a whole number"],
    ),
    "word for a number": (
        [FOLDER, "--config.loss.l1=one"],
        ["--config.loss.l1=one must be a number"],
    ),
    "word for a switch": (
        [FOLDER, "--config.data.flip=perhaps"],
        ["--config.data.flip=perhaps must be true or false"],
    ),
    "a mode misspelt": (
        [FOLDER, "--mode=sampel"],
        ["--mode=sampel is unknown: did you mean sample?"],
    ),
    "a variant misspelt": (
        ["--config=toon_faces:larg"],
        ["'larg' is unknown: did you mean large?"],
    ),
    "a config misspelt": (["--config=toon_face"], ["'toon_face': did you mean toon_faces?"]),
    "unknown variant": (["--config=configs/toon_faces.py:smal"], ["smal", "smoke"]),
    "a workdir without a run": (["--mode=train"], ["holds no run: give --config to begin one"]),
    "unknown mode": ([FOLDER, "--mode=dream"], ["mode", "dream", "reconstruct"]),
    "unknown flag": ([FOLDER, "--werkdir=x"], ["werkdir"]),
    "stray argument": ([FOLDER, "train"], ["'train'", "--name=value"]),
    "too few latents": (
        [FOLDER, "--config.quantizer.init_batches=1", "--config.train.batch_size=8"],
        ["init_batches", "raise"],
    ),
    "no data path": ([FOLDER], ["--config.data.path=DIR"]),
    "evaluate an empty workdir": ([FOLDER, "--mode=evaluate"], ["--mode=train"]),
    "no weights for the evaluation": (
        [FOLDER, "--config.evaluate.features_path=/no/weights.safetensors"],
        ["/no/weights.safetensors"],
    ),
    "no weights of LPIPS": (
        [FOLDER, "--mode=evaluate", "--config.loss.perceptual_weights=/no/alex.safetensors"],
        ["/no/alex.safetensors"],
    ),
    "a name that commands the terminal": (
        [FOLDER, "--config.name=\x1b[2Jx"],
        ["name = '\\x1b[2Jx'", "would not print"],
    ),
    "reconstruct what": ([FOLDER, "--mode=reconstruct"], ["--input=DIR"]),
    "sample what is given": (
        [FOLDER, "--mode=sample", "--input=."],
        ["--input is for --mode=reconstruct, not sample"],
    ),
    "a folder for training": (
        [FOLDER, "--output=x"],
        ["--output is for --mode=sample or reconstruct, not train"],
    ),
    "start from nothing": (
        [FOLDER, "--config.data.name=random", "--init_from=no_such"],
        ["no_such is no directory here", "toon_faces"],
    ),
}


@pytest.mark.parametrize("arguments, words", WRONG.values(), ids=WRONG)
def test_mistakes_get_one_line_and_write_nothing(commands, tmp_path, arguments, words):
    workdir = tmp_path / "run"
    done = commands.run(*arguments, f"--workdir={workdir}")
    assert_refused(done, *words)
    assert not workdir.exists()


UNUSABLE = {
    "data": [FOLDER, "--config.data.path={path}"],
    "config": ["--config={path}"],
    "input": [FOLDER, "--mode=reconstruct", "--input={path}"],
    "output": ["--pretrained=toon_faces", "--mode=sample", "--output={path}"],
    "edited": ["--pretrained=toon_faces", "--mode=reconstruct", "--input=docs", "--output={path}"],
    "weights": [FOLDER, "--config.data.name=random", "--init_from={path}"],
    "published": ["--mode=sample", "--pretrained={path}"],
}


@pytest.mark.parametrize("name", ["loop", "loop/within", "x" * 300])
@pytest.mark.parametrize("arguments", UNUSABLE.values(), ids=UNUSABLE)
def test_a_link_in_a_loop_and_a_name_that_is_too_long_are_refused(
    commands, tmp_path, arguments, name
):
    (tmp_path / "loop").symlink_to("loop")
    given = [each.format(path=tmp_path / name) for each in arguments]
    assert_refused(commands.run(*given, f"--workdir={tmp_path / 'run'}"), str(tmp_path)[:20])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["loop", "loop/within", "x" * 300])
def test_so_they_are_as_a_workdir(commands, tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    done = commands.run(
        FOLDER, "--config.data.name=random", f"--workdir={tmp_path / name}", "--mode=evaluate"
    )
    assert_refused(done, str(tmp_path)[:20])


@pytest.mark.parametrize(
    "line, message",
    [
        ("assert False", "AssertionError"),
        ("{}['size']", "KeyError: 'size'"),
        ("import math; math.nothing", "AttributeError: module 'math' has no attribute 'nothing'"),
    ],
)
def test_a_config_that_fails_says_why(commands, tmp_path, line, message):
    config = tmp_path / "mine.py"
    config.write_text(f"def get_config(variants=''):\n    {line}\n")
    done = commands.run(f"--config={config}", "--config.train.steps=9")
    assert_refused(done)
    assert done.stderr == f"error: {message}\n"


@pytest.mark.parametrize(
    "place, words",
    [
        pytest.param(
            *("gs://b/run", ["cannot open gs://b/run", "gcsfs"]),
            marks=pytest.mark.skipif(find_spec("gcsfs") is not None, reason="it can be reached"),
        ),
        pytest.param("ftp://b/run", ["use gs://, s3://"], marks=pytest.mark.slow),
        pytest.param(
            *("s3://b/run", ["cannot open s3://b/run", "s3fs"]),
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(find_spec("s3fs") is not None, reason="it can be reached"),
            ],
        ),
    ],
)
def test_remote_storage_that_cannot_be_reached_is_refused(commands, place, words):
    assert_refused(commands.run(FOLDER, f"--workdir={place}", "--config.data.name=random"), *words)
    # Where the config is that of the run, it is looked for there while flags are parsed.
    assert_refused(commands.run(f"--workdir={place}", "--config.train.steps=9"), *words)


REFUSED = """
import sys
from pivq_jax import main
from pivq_jax.commands import program

class RefreshError(Exception):
    __module__ = "google.auth.exceptions"

def refuse(path):
    raise RefreshError("Reauthentication is needed")

program.as_path = refuse
sys.argv = ["pivq_jax", "--workdir=gs://bucket/run", "--config.sample.count=500"]
main.run()
"""


def test_a_bucket_that_refuses_while_flags_are_parsed_is_one_line(commands):
    done = commands.run(code=REFUSED)
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: the storage refused (Reauthentication is needed)"
    )
    assert "Traceback" not in done.stderr


def test_batch_must_divide_among_the_devices(commands, small_folder, tmp_path):
    arguments = [FOLDER, f"--config.data.path={small_folder}", "--config.train.batch_size=12"]
    done = commands.run(*arguments, f"--workdir={tmp_path / 'run'}", devices=8)
    assert_refused(done, "train.batch_size = 12", "8 devices", "multiple of 16")
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_config_is_refused(commands, trained):
    before = sorted(str(path) for path in trained.workdir.rglob("*"))
    done = commands.run(*trained.arguments, "--config.model.width=64")
    assert_refused(done, "model.width = 32", "--workdir")
    assert sorted(str(path) for path in trained.workdir.rglob("*")) == before


def test_a_workdir_under_whose_name_checkpoints_are_lost_is_refused(
    commands, tiny_arguments, tmp_path
):
    done = commands.run(*tiny_arguments, f"--workdir={tmp_path / 'br[1]'}")
    assert_refused(done, "br[1]", "--workdir")
    assert not any(tmp_path.iterdir())


def test_a_workdir_that_is_no_directory_is_refused(commands, small_folder, tmp_path):
    (tmp_path / "run").write_text("a file")
    data = f"--config.data.path={small_folder}"
    for workdir in (tmp_path / "run", tmp_path / "run" / "below"):
        assert_refused(commands.run(FOLDER, data, f"--workdir={workdir}"), "run is a file")


@pytest.mark.slow
def test_a_run_is_not_continued_on_other_images(commands, tiny_run, small_folder, tmp_path):
    more = shutil.copytree(small_folder, tmp_path / "more")
    shutil.copy(small_folder / "0.png", more / "once_more.png")
    workdir = shutil.copytree(tiny_run.workdir, tmp_path / "run")
    arguments = [*tiny_run.arguments[:-1], f"--workdir={workdir}"]
    before = (workdir / "config.json").read_text()
    done = commands.run(*arguments, f"--config.data.path={more}")
    assert done.code == 2 and not done.stdout
    assert (workdir / "config.json").read_text() == before
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "other data" in line and "--workdir" in line
    # The same images elsewhere are no other images.
    moved = shutil.copytree(small_folder, tmp_path / "moved")
    done = commands.run(*arguments, f"--config.data.path={moved}")
    assert done.code == 0, done.stderr


def test_a_workdir_with_a_damaged_config_is_refused(commands, small_folder, tmp_path):
    (tmp_path / "config.json").write_text('{"name": ')
    data = f"--config.data.path={small_folder}"
    assert_refused(commands.run(FOLDER, data, f"--workdir={tmp_path}"), "is damaged", "--workdir")


def test_fields_change_the_config_of_the_run_not_of_an_experiment(commands, tiny_run, tmp_path):
    run = tmp_path / "toon_faces"
    run.mkdir()
    shutil.copy(tiny_run.workdir / "config.json", run)
    arguments = ["--workdir=toon_faces", "--mode=sample", "--config.sample.count=4"]
    assert_refused(commands.run(*arguments, directory=tmp_path), "no checkpoint")


def test_the_value_of_a_flag_is_not_taken_for_a_field(commands, tmp_path):
    (tmp_path / "config.json").write_text("{")
    arguments = ["--mode=reconstruct", "--workdir=.", "--input", "config.x", "--output=out"]
    # As with `--input=config.x`: with fields it would be "choose another --config".
    assert_refused(commands.run(*arguments, directory=tmp_path), "choose another --workdir")


@pytest.mark.parametrize("others", [[], ["--pretrained=no_faces", "--config.sample.count=3"]])
def test_help_says_what_the_modes_do(commands, others):
    done = commands.run(*others, "--help")
    assert done.code == 0 and not done.stderr
    table = done.stdout.partition("Modes:")[2].partition("\n\n")[0]
    listed = re.findall(r"^  (\w+)", table, re.MULTILINE)
    assert {"train", "evaluate", "sample", "reconstruct"} <= {*listed}
    assert listed == [*MODES] and all(callable(getattr(modes, name)) for name in listed)
    for word in ("--workdir", "--input"):
        assert word in done.stdout
