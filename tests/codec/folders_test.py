"""Folders to files of codes and back: the command, and what it refuses."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pivq_jax import codec
from pivq_jax.codec import folders
from pivq_jax.codec.container import pack, parse
from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_uint8, load_image
from pivq_jax.data.tree import list_images
from pivq_jax.inference import TrainedModel, encode_split
from pivq_jax.sampling.prior import SetPrior
from tests.codec.priors import random_prior
from tests.conftest import full_disk


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
    assert "compressing" in done.stderr

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


def test_with_a_prior(model, small_folder, tmp_path, capfd):
    file, few = tmp_path / "faces.pivq", tmp_path / "few"
    few.mkdir()
    for i in range(40):  # of three faces, so that a prior has something to tell
        shutil.copy(small_folder / f"{i % 3}.png", few / f"{i}.png")
    codes = encode_split(model, [{"image": load_image(few / f"{i}.png", 16)} for i in range(3)], 3)
    prior = random_prior(SetPrior(32, width=8, depth=1, heads=2), scale=0.0)
    prior.params["logits"]["bias"] += np.log(np.bincount(codes.ravel(), minlength=32) + 0.1)
    able = TrainedModel(model.config, model.mesh, model.params, model.step, {}, prior=prior)
    capfd.readouterr()
    folders.compress(able, few, file, "prior")
    shown = capfd.readouterr()
    assert "for codes (prior)" in shown.out and "coding: 100%" in shown.err and "40/40" in shown.err
    folders.decompress(able, file, tmp_path / "out")
    assert len(os.listdir(tmp_path / "out")) == 40
    with pytest.raises(InputError, match="that of this model is none"):
        folders.decompress(model, file, tmp_path / "again")
    shutil.rmtree(tmp_path / "out")
    for i in range(1, 40):
        (few / f"{i}.png").unlink()
    folders.compress(able, few, file, "prior")
    assert "written with the fixed code, which is shorter here" in capfd.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["faces.pivq", "few"]


@pytest.mark.parametrize("how", ["way out", "last code", "full disk", "one name"])
def test_what_goes_wrong_on_the_way_leaves_nothing(model, tmp_path, monkeypatch, how):
    file, names = tmp_path / "faces.pivq", [f"{i}.png" for i in range(60)]
    codes = np.stack([np.sort(np.random.default_rng(i).permutation(32)[:8]) for i in range(60)])
    codec.write(file, model, codes, names)
    contents, words = parse(file.read_bytes(), "file"), "image 59 has a rank beyond the last"
    if how == "way out":
        words = "the name '../evil.png'"
        with monkeypatch.context() as patch:  # as another program would write it
            patch.setattr("pivq_jax.codec.container.check_names", tuple)
            file.write_bytes(pack(contents._replace(names=(*names[:-1], "../evil.png"))))
    elif how == "last code":
        file.write_bytes(pack(contents._replace(data=contents.data[:-3] + b"\xff\xff\xff")))
    elif how == "full disk":
        words = "No space left"
        monkeypatch.setattr("pivq_jax.codec.folders.encode_png", full_disk)
    else:
        words = r"two images are named '3\.png' on this file system"
        changed = [name.replace("7", "3") for name in names]
        monkeypatch.setattr(folders, "png_names", lambda names: changed)
    with pytest.raises(OSError if how == "full disk" else InputError, match=words):
        folders.decompress(model, file, tmp_path / "out")
    assert os.listdir(tmp_path) == ["faces.pivq"]


def test_what_cannot_be_compressed_is_refused_before_the_work(
    model, small_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("pivq_jax.inference.folders.encode_split", None)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("")
    folder, two, long, not_unicode = (tmp_path / name for name in ("a", "two", "long", "bytes"))
    for each in (folder, two, long, not_unicode):
        each.mkdir()
    (folder / "a.jpg").write_bytes(b"")
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        shutil.copy(small_folder / "0.png", two / name)
    for ending in ("jpg", "bmp"):  # which one keeps
        shutil.copy(small_folder / "0.png", long / f"{'a' * 251}.{ending}")
    shutil.copy(small_folder / "0.png", os.fsencode(not_unicode) + b"/\xff.png")
    for source, target, words in (
        (small_folder, tmp_path, "is a folder: give the name of a file"),
        (small_folder, tmp_path / "pipe", "pipe is no file, and would become one: choose"),
        (small_folder, small_folder / "0.png", "named like an image: give a name"),
        (small_folder, tmp_path / "text" / "x", "text is a file: choose another --output"),
        (tmp_path / "nothing", tmp_path / "x", "no directory"),
        (not_unicode, tmp_path / "x", "is not Unicode"),
        (two, tmp_path / "x", "two images would become"),
        (long, tmp_path / "x", "would take 259 bytes.*give the image a shorter one"),
        (folder, tmp_path / "x", "no readable image"),
    ):
        with pytest.raises(InputError, match=words):
            folders.compress(model, source, target)
    assert not (tmp_path / "x").exists()
