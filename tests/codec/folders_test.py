"""Folders to files of codes and back: the command, and what it refuses."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pivq_jax import codec
from pivq_jax.codec import files, folders
from pivq_jax.codec.container import pack, parse
from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_uint8, load_image
from pivq_jax.data.tree import list_images
from pivq_jax.inference import TrainedModel, encode_split
from pivq_jax.sampling.prior import SetPrior
from tests.codec.priors import random_prior


@pytest.fixture
def model(tiny_model):
    return tiny_model


@pytest.fixture
def source(small_folder, tmp_path) -> Path:
    """40 images, some nested, of other sizes or names, and two files that are none."""
    folder = shutil.copytree(small_folder, tmp_path / "in")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "1.png").rename(folder / "deep" / "er" / "ü 顔.png")
    Image.open(folder / "2.png").resize((90, 70)).save(folder / "deep" / "2.JPG", "JPEG")
    (folder / "2.png").unlink()
    (folder / "corrupt.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not meant")
    return folder


def test_the_command_there_and_back(commands, tiny_run, model, source, tmp_path):
    file, target = tmp_path / "faces.pivq", tmp_path / "out"
    workdir = f"--workdir={tiny_run.workdir}"
    done = commands.run(
        *("compress", workdir, f"--input={source}", f"--output={file}"),
        module="codec",
    )
    assert done.code == 0, done.stderr
    skipped, summary, fidelity = done.stdout.splitlines()
    assert skipped.startswith("skipped: ") and "corrupt.png" in skipped
    assert f"40 images in {file}: {file.stat().st_size:,} bytes" in summary
    assert "ceiling_bits = 23.3 (2.9 bytes)" in summary and "marginal_bits = " in summary
    test_images = f"; {model.metrics['psnr']:.1f} dB on the test images of the model"
    assert fidelity.startswith("mean PSNR ") and fidelity.endswith(test_images)
    assert "compressing" in done.stderr and "40" not in os.listdir(source)

    names = [name for name in list_images(source) if name != "corrupt.png"]
    images = [{"image": load_image(source / name, 16)} for name in names]
    found = codec.read(file, model)
    assert list(found.names) == names
    np.testing.assert_array_equal(found.codes, encode_split(model, images, 8))

    back = ["decompress", f"--input={file}", f"--output={target}"]
    done = commands.run(*tiny_run.arguments, *back, module="codec")
    assert done.code == 0, done.stderr
    assert f"40 images in {target}" in done.stdout
    written = {path.relative_to(target).as_posix() for path in target.rglob("*.png")}
    assert written == {*names} - {"deep/2.JPG"} | {"deep/2.png"}
    for name, codes in zip(names, found.codes, strict=True):
        decoded = np.asarray(images_to_uint8(model.decode(np.repeat(codes[None], 8, 0))))[0]
        picture = np.asarray(Image.open(target / name.replace("JPG", "png")), np.int16)
        # A command may be compiled otherwise.
        assert picture.shape == (16, 16, 3) and np.max(np.abs(picture - decoded)) <= 1
    assert sorted(os.listdir(tmp_path)) == ["faces.pivq", "in", "out"]


def test_a_file_is_replaced_and_a_folder_is_not(model, small_folder, tmp_path):
    file = tmp_path / "faces.pivq"
    file.write_bytes(b"earlier")
    folders.compress(model, small_folder, file)
    assert len(parse(file.read_bytes(), "file").names) == 40
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "0.png").write_bytes(b"precious")
    for target in (tmp_path / "full", file):
        with pytest.raises(InputError, match="exists: give a new --output"):
            folders.decompress(model, file, target)
    assert (tmp_path / "full" / "0.png").read_bytes() == b"precious"
    (tmp_path / "empty").mkdir(mode=0o700)
    before = (tmp_path / "empty").stat()
    folders.decompress(model, file, tmp_path / "empty")
    assert len(os.listdir(tmp_path / "empty")) == 40
    after = (tmp_path / "empty").stat()  # the folder may be a mounted volume
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_an_image_that_goes_away_leaves_the_earlier_file(
    model, small_folder, tmp_path, monkeypatch
):
    file = tmp_path / "faces.pivq"
    file.write_bytes(b"earlier")
    monkeypatch.setattr(folders, "list_images", lambda root: ["gone.png", *list_images(root)])
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        folders.compress(model, small_folder, file)
    assert file.read_bytes() == b"earlier"


def test_ranking_shows_progress(model, small_folder, tmp_path, capfd, monkeypatch):
    """Where N is large, it takes longer than the encoder."""
    monkeypatch.setattr(files, "_RANKED", 100)  # codes; an image has 8
    folders.compress(model, small_folder, tmp_path / "faces.pivq")
    bar = capfd.readouterr().err.rpartition("\r")[2]
    assert bar.startswith("coding: 100%") and "40/40" in bar
    assert len(parse((tmp_path / "faces.pivq").read_bytes(), "file").names) == 40


def test_with_a_prior(model, small_folder, tmp_path, capfd):
    file, few = tmp_path / "faces.pivq", tmp_path / "few"
    few.mkdir()
    for i in range(40):  # of three faces, so that a prior has something to tell
        shutil.copy(small_folder / f"{i % 3}.png", few / f"{i}.png")
    with pytest.raises(InputError, match="no prior to code with"):
        folders.compress(model, few, file, "prior")
    assert capfd.readouterr().err == ""
    codes = encode_split(model, [load(few / f"{i}.png") for i in range(40)], 8)
    network = SetPrior(32, width=8, depth=1, heads=2)
    prior = random_prior(network, scale=0.0)
    prior.params["logits"]["bias"] += np.log(np.bincount(codes.ravel(), minlength=32) + 0.1)
    able = TrainedModel(model.config, model.mesh, model.params, model.step, {}, prior=prior)
    folders.compress(able, few, file, "prior")
    shown = capfd.readouterr()
    assert "for codes (prior)" in shown.out and "coding: 100%" in shown.err and "40/40" in shown.err
    folders.decompress(able, file, tmp_path / "out")
    assert len(os.listdir(tmp_path / "out")) == 40
    with pytest.raises(InputError, match="that of this model is none"):
        folders.decompress(model, file, tmp_path / "again")
    assert sorted(os.listdir(tmp_path)) == ["faces.pivq", "few", "out"]


def load(path: Path) -> dict[str, np.ndarray]:
    return {"image": load_image(path, 16)}


@pytest.fixture
def file(model, tmp_path) -> Path:
    codes = np.stack([np.sort(np.random.default_rng(i).permutation(32)[:8]) for i in range(60)])
    codec.write(tmp_path / "faces.pivq", model, codes, [f"{i}.png" for i in range(60)])
    return tmp_path / "faces.pivq"


def assert_nothing_left(tmp_path: Path) -> None:
    assert os.listdir(tmp_path) == ["faces.pivq"]


@pytest.mark.parametrize("name", ["../evil.png", "0.png"])
def test_names_never_lead_out_of_the_folder(model, file, tmp_path, monkeypatch, name):
    contents = parse(file.read_bytes(), "file")
    monkeypatch.setattr("pivq_jax.codec.container.check_names", tuple)  # as another program would
    file.write_bytes(pack(contents._replace(names=(*contents.names[:-1], name))))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"the name|two images"):
        folders.decompress(model, file, tmp_path / "out")
    assert_nothing_left(tmp_path)


def test_damage_found_on_the_way_leaves_nothing(model, file, tmp_path):
    contents = parse(file.read_bytes(), "file")
    damaged = contents.data[:-3] + b"\xff\xff\xff"
    file.write_bytes(pack(contents._replace(data=damaged)))
    with pytest.raises(InputError, match=r"faces\.pivq: image 59 has a rank beyond the last"):
        folders.decompress(model, file, tmp_path / "out")
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(model, file, tmp_path, monkeypatch, error):
    written = []

    def encode(image):
        if len(written) == 20:
            raise error
        written.append(image)
        return b""

    monkeypatch.setattr(folders, "encode_png", encode)
    with pytest.raises(type(error) if isinstance(error, OSError) else error) as failed:
        folders.decompress(model, file, tmp_path / "out")
    assert isinstance(error, type) or failed.value.filename == str(tmp_path / "out")
    assert_nothing_left(tmp_path)


def test_images_that_the_model_does_not_know_are_warned_of(model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "noise.png")
    model = dataclasses.replace(model, metrics={"psnr": 55.2})
    folders.compress(model, tmp_path / "in", tmp_path / "noise.pivq")
    _, line, warning = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mean PSNR \d+\.\d dB; 55\.2 dB on the test images of the model", line)
    assert warning.startswith("warning: the model does not know such images")


def test_names_too_long_to_be_written_are_refused_before_the_work(
    model, small_folder, tmp_path, monkeypatch
):
    (tmp_path / "in").mkdir()
    longest = "a" * 251
    shutil.copy(small_folder / "0.png", tmp_path / "in" / f"{longest}.jpg")
    folders.compress(model, tmp_path / "in", tmp_path / "faces.pivq")
    folders.decompress(model, tmp_path / "faces.pivq", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [f"{longest}.png"]

    shutil.copy(small_folder / "0.png", tmp_path / "in" / f"{longest}.bmp")  # whose ending it keeps
    codec.write(tmp_path / "long.pivq", model, np.arange(8)[None], [f"aaa{longest}"])
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("pivq_jax.inference.folders.encode_split", None)
    monkeypatch.setattr(folders, "decode_batched", None)
    with pytest.raises(InputError, match=r"would take 259 bytes.*give the image a shorter one"):
        folders.compress(model, tmp_path / "in", tmp_path / "more.pivq")
    with monkeypatch.context() as patch:
        patch.setattr("pivq_jax.codec.container.MAX_LIST", 255)
        (tmp_path / "in" / f"{longest}.bmp").rename(tmp_path / "in" / "b.png")
        with pytest.raises(InputError, match=r"the names of 2 images take 262 bytes"):
            folders.compress(model, tmp_path / "in", tmp_path / "more.pivq")
    with pytest.raises(InputError, match=r"would take 258 bytes.*codec\.read"):
        folders.decompress(model, tmp_path / "long.pivq", tmp_path / "again")
    assert sorted(os.listdir(tmp_path)) == before


def test_names_that_are_one_on_a_file_system_are_refused(model, file, tmp_path, monkeypatch):
    monkeypatch.setattr(
        folders, "png_names", lambda names: [name.replace("7", "3") for name in names]
    )
    with pytest.raises(InputError, match=r"two images are named '3\.png' on this file system"):
        folders.decompress(model, file, tmp_path / "out")
    assert_nothing_left(tmp_path)


def test_what_cannot_be_compressed_is_refused_before_the_work(
    model, small_folder, tmp_path, monkeypatch
):
    def never(*arguments):
        raise AssertionError("the work began")

    monkeypatch.setattr("pivq_jax.inference.folders.encode_split", never)
    with pytest.raises(InputError, match="is a folder: give the name of a file"):
        folders.compress(model, small_folder, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is no file, and would become one: choose"):
        folders.compress(model, small_folder, tmp_path / "pipe")
    with pytest.raises(InputError, match="named like an image: give a name"):
        folders.compress(model, small_folder, small_folder / "0.png")
    (tmp_path / "text").write_text("")
    with pytest.raises(InputError, match="text is a file: choose another --output"):
        folders.compress(model, small_folder, tmp_path / "text" / "faces.pivq")
    with pytest.raises(InputError, match="no directory"):
        folders.compress(model, tmp_path / "nothing", tmp_path / "faces.pivq")
    strange = tmp_path / "strange"
    strange.mkdir()
    shutil.copy(small_folder / "0.png", os.fsencode(strange) + b"/\xff.png")
    with pytest.raises(InputError, match="is not Unicode"):
        folders.compress(model, strange, tmp_path / "faces.pivq")
    (strange / os.fsdecode(b"\xff.png")).unlink()
    shutil.copy(small_folder / "0.png", strange / "a.jpg")
    shutil.copy(small_folder / "0.png", strange / "a.png")
    shutil.copy(small_folder / "0.png", strange / "a.jpg.png")
    with pytest.raises(InputError, match="two images would become"):
        folders.compress(model, strange, tmp_path / "faces.pivq")
    (strange / "a.jpg").write_bytes(b"")
    (strange / "a.png").unlink()
    (strange / "a.jpg.png").unlink()
    with pytest.raises(InputError, match="no readable image"):
        folders.compress(model, strange, tmp_path / "faces.pivq")
    assert not (tmp_path / "faces.pivq").exists()
