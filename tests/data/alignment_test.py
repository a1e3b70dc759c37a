"""Folders of drawn faces, aligned: what is written, kept, skipped and refused; the command."""

import json
import os
import shlex
import shutil
import sys
import time

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


def run(source, output, size=32, **options):
    """With the detector of `drawn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landmarks, "find_eyes", eyes_of)
        patch.setattr(landmarks, "versions", dict)
        return alignment.align_folder(source, output, size, **options)


def test_each_photograph_becomes_a_png_of_its_name(source, tmp_path):
    aligned, skipped = run(source, tmp_path / "out", preset="celeba")
    assert (aligned, skipped) == (6, [])
    names = sorted(f"part {i % 2}/{i}.png" for i in range(6))
    assert list_images(tmp_path / "out") == names
    places = np.array(framing.PRESETS["celeba"]) * 32
    for name in names:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == "PNG" and image.mode == "RGB"
            assert np.abs(eyes_of(np.asarray(image)) - places).max() < 1
    assert (tmp_path / "out" / "skipped.tsv").read_text() == "file\treason\tdetail\n"


def test_what_cannot_be_aligned_is_listed_and_skipped(source, tmp_path):
    Image.new("RGB", (90, 90), "white").save(source / "none.png")
    (source / "broken.jpg").write_bytes(b"no image")
    photograph(source / "far.png", distance=5)
    photograph(source / "near.png", distance=6)
    photograph(source / "cut.png", distance=60, middle=(55, 200))  # an eye 25 pixels from the edge
    aligned, skipped = run(source, tmp_path / "out")
    assert aligned == 7
    assert [(each.file, each.reason) for each in skipped] == [
        ("broken.jpg", "unreadable"),
        ("cut.png", "cut off"),
        ("far.png", "too small"),
        ("none.png", "no face"),
    ]
    lines = (tmp_path / "out" / "skipped.tsv").read_text().splitlines()
    assert lines[0] == "file\treason\tdetail" and len(lines) == 5
    assert lines[1].startswith("broken.jpg\tunreadable\tcannot read image broken.jpg: not an image")
    # .36 of 32 pixels is 11.5; half of that, as no more than twice is enlarged.
    assert lines[2].startswith("cut.png\tcut off\tan eye is 25.") and lines[2].endswith("than 27.0")
    assert lines[3].endswith(" pixels apart, less than 5.8")
    assert len(list_images(tmp_path / "out")) == 7
    assert alignment.counts(skipped) == "1 no face, 1 too small, 1 cut off, 1 unreadable"


def test_photographs_whose_names_are_in_a_skip_list_are_left_out(source, tmp_path):
    photograph(source / "part 0" / "old-Mad-Max-12.png")
    photograph(source / "mad max" / "b.png")  # a folder is no name
    (source / "max_mad.png").write_bytes(b"no image")
    aligned, skipped = run(source, tmp_path / "out", skip=SkipList(["mad max"]))
    assert aligned == 7 and len(list_images(tmp_path / "out")) == 7
    assert [each.reason for each in skipped] == ["unreadable", "skip list"]
    assert alignment.counts(skipped) == "1 skip list, 1 unreadable"
    lines = (tmp_path / "out" / "skipped.tsv").read_text().splitlines()
    assert lines[2] == "part 0/old-Mad-Max-12.png\tskip list\tits name has: mad max"


def test_a_changed_skip_list_needs_another_output(source, tmp_path):
    run(source, tmp_path / "out", skip=SkipList(["3", "x y"]))
    assert run(source, tmp_path / "out", skip=SkipList(["X-Y", "3"]))[0] == 5
    message = r"was made with another skip list \(see align.json there\)"
    refused(source, tmp_path / "out", message, skip=SkipList(["3"]))
    refused(source, tmp_path / "out", message)
    run(source, tmp_path / "plain")
    refused(source, tmp_path / "plain", message, skip=SkipList(["3"]))


def test_a_skip_list_that_leaves_nothing_is_refused(source, tmp_path):
    everything = SkipList(list("012345"))
    refused(source, tmp_path / "out", "--skip leaves none of the 6 images in", skip=everything)
    for i in range(1, 6):
        next(source.rglob(f"{i}.*")).write_bytes(b"no image")
    message = r"none of the 6 .* \(1 skip list, 5 unreadable; part 0/2.webp: cannot read"
    refused(source, tmp_path / "out", message, skip=SkipList(["0"]))


def test_what_a_start_that_was_killed_left_is_no_other_file(source, tmp_path):
    left = tmp_path / "out" / f".{alignment.SETTINGS}.{'0' * 32}.tmp"
    left.parent.mkdir()
    left.write_bytes(b"{")
    run(source, tmp_path / "out")
    assert not left.exists() and (tmp_path / "out" / alignment.SETTINGS).exists()


def test_called_again_it_completes_with_the_same_bytes(source, tmp_path):
    run(source, tmp_path / "whole")
    run(source, tmp_path / "out")
    kept, gone = tmp_path / "out/part 0/0.png", tmp_path / "out/part 1/5.png"
    before = kept.stat()
    gone.unlink()
    (tmp_path / "out/part 0/.4.png.1234.tmp").write_bytes(b"half")  # as a killed command leaves
    (tmp_path / "out/skipped.tsv").unlink()
    assert run(source, tmp_path / "out") == (6, [])
    assert kept.stat().st_ctime_ns == before.st_ctime_ns
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_changed_and_new_photographs_are_aligned_when_called_again(source, tmp_path):
    """Older ones, too: `mv`, `cp -p` and `unzip` keep times."""
    run(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    for name, changed in (("part 0/0.png", time.time() + 5), ("part 1/3.png", 10**9)):
        photograph(source / name, middle=(260, 240), angle=0.5)
        os.utime(source / name, (changed, changed))
    photograph(source / "new.png")
    assert run(source, tmp_path / "out") == (7, [])
    after = contents(tmp_path / "out")
    assert {name for name in after if after[name] != before.get(name)} == {
        "part 0/0.png",
        "part 1/3.png",
        "new.png",
    }


def test_another_photograph_of_the_same_time_is_aligned(source, tmp_path):
    """As `cp -p`, `tar` and `zip` replace one; whatever the time of the aligned image became."""
    run(source, tmp_path / "out")
    before, name = contents(tmp_path / "out"), "part 0/0.png"
    status = (source / name).stat()
    photograph(source / name, middle=(260, 240), angle=0.5)
    os.utime(source / name, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert (source / name).stat().st_size != status.st_size
    run(source, tmp_path / "out")
    after = contents(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {name}


def test_a_file_system_that_rounds_times_keeps_what_is_aligned(source, tmp_path):
    run(source, tmp_path / "out")
    files = [tmp_path / "out" / file for file in list_images(tmp_path / "out")]
    for file in files:
        even = file.stat().st_mtime_ns // (2 * 10**9) * (2 * 10**9)
        os.utime(file, ns=(even, even))
    before = [file.stat().st_ctime_ns for file in files]
    run(source, tmp_path / "out")
    assert [file.stat().st_ctime_ns for file in files] == before


def test_of_a_photograph_that_lost_its_face_nothing_is_left(source, tmp_path):
    run(source, tmp_path / "out")
    Image.new("RGB", (90, 90)).save(source / "part 0" / "0.png")
    later = time.time() + 5
    os.utime(source / "part 0/0.png", (later, later))
    aligned, skipped = run(source, tmp_path / "out")
    assert aligned == 5 and [each.reason for each in skipped] == ["no face"]
    assert len(list_images(tmp_path / "out")) == 5


def test_photographs_that_go_away_leave_what_was_aligned(source, tmp_path, monkeypatch):
    run(source, tmp_path / "out")
    before = contents(tmp_path / "out")

    def going(root):
        listed = list_images(root)
        source.rename(tmp_path / "elsewhere")
        return listed

    monkeypatch.setattr(alignment.tree, "list_images", going)
    with pytest.raises(FileNotFoundError, match=r"part 0/0\.png"):
        run(source, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"part 0/0\.png"):  # gone even later
        alignment._align_file(source, tmp_path / "out", 32, "face", "part 0/0.png")
    assert contents(tmp_path / "out") == before


def refused(source, output, message, **options):
    """Nothing is written, nor lost."""
    before = contents(output) if output.is_dir() else None
    with pytest.raises(InputError, match=message) as caught:
        run(source, output, **options)
    assert "\n" not in str(caught.value)
    after = contents(output) if output.is_dir() else None
    assert after == before


def test_other_settings_need_another_output(source, tmp_path):
    run(source, tmp_path / "out")
    refused(source, tmp_path / "out", "was made with another size", size=40)
    refused(source, tmp_path / "out", "made with another preset", preset="ffhq")
    photograph(tmp_path / "other/a.png")
    refused(tmp_path / "other", tmp_path / "out", "made with another source")
    settings = json.loads((tmp_path / "out/align.json").read_text())
    assert settings["size"] == 32 and "pillow" in settings["versions"]


def test_sources_and_outputs_that_cannot_be(source, tmp_path):
    refused(tmp_path / "nowhere", tmp_path / "out", "no directory .*nowhere: give the path")
    refused(source / "part 0/0.png", tmp_path / "out", "0.png is a file: give the path")
    (tmp_path / "link").symlink_to(source)
    for root, output in (
        *((source, source), (source, tmp_path / "link")),
        *((source, source / "out"), (source / "part 0", source)),
    ):
        refused(root, output, "--output .* must be neither --source .* nor within or around it")
    refused(source, source / "part 0/0.png", "is a file: choose another --output")
    refused(source, tmp_path / "out", "--size is 7: it must be at least 8", size=7)
    refused(source, tmp_path / "out", "--size is 9000: .* at most 8,192", size=9000)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "out", "no image in .*empty")
    photograph(tmp_path / "mine" / "holiday.png")
    refused(source, tmp_path / "mine", "holds other files, such as holiday.png: choose another")


def test_two_photographs_of_one_name_are_refused(source, tmp_path):
    photograph(source / "part 0" / "0.jpg")
    refused(source, tmp_path / "out", r"part 0/0.jpg and part 0/0.png would both become part 0/0.p")


def test_a_folder_without_faces_is_an_error_that_says_so(tmp_path):
    (tmp_path / "photographs").mkdir()
    for i in range(3):
        Image.new("RGB", (50, 50), (i, i, i)).save(tmp_path / "photographs" / f"{i}.png")
    message = r"none of the 3 images in .* could be aligned \(3 no face; 0.png: no face was found\)"
    refused(tmp_path / "photographs", tmp_path / "out", message)
    (tmp_path / "there").mkdir()
    refused(tmp_path / "photographs", tmp_path / "there", message)


def test_photographs_without_faces_leave_those_aligned_before(source, tmp_path):
    run(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    shutil.move(source / "part 0", tmp_path / "kept")
    shutil.rmtree(source / "part 1")
    Image.new("RGB", (50, 50)).save(source / "black.png")
    with pytest.raises(InputError, match="could be aligned"):
        run(source, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    shutil.move(tmp_path / "kept", source / "part 0")
    assert run(source, tmp_path / "out")[0] == 3


def test_a_folder_named_like_an_aligned_photograph_is_refused(source, tmp_path):
    photograph(source / "a.jpg")
    photograph(source / "a.png" / "b.jpg")
    refused(source, tmp_path / "out", r"a.jpg would become a.png, the folder of a.png/b.jpg")


def test_workers_write_what_one_process_does(faces, tmp_path, monkeypatch):
    """With the real detector, which workers import by themselves."""
    monkeypatch.setattr(alignment, "_PHOTOGRAPHS_PER_WORKER", 1)
    Image.new("RGB", (90, 90)).save(faces / "0.png")
    one = alignment.align_folder(faces, tmp_path / "one", 64)
    assert one[0] == 3 and [each.file for each in one[1]] == ["0.png"]
    assert alignment.align_folder(faces, tmp_path / "several", 64, workers=2) == one
    assert contents(tmp_path / "one") == contents(tmp_path / "several")
    assert list_images(tmp_path / "one") == ["1.png", "2.png", "3.png"]


def test_wrong_values_of_flags_are_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    arguments = [f"--source={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=64"]
    assert align.main([*arguments, "--workers=0"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: --workers is 0") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_flag_names_a_file_of_words(tmp_path, capsys, monkeypatch):
    def align_folder(*_, skip, **__):
        return 3, [alignment.Skipped("a-b.png", "skip list", skip.find("a-b.png"))]

    monkeypatch.setattr(alignment, "align_folder", align_folder)
    (words := tmp_path / "words.txt").write_text("b  # a letter\n")
    arguments = [f"--source={tmp_path}", f"--output={tmp_path / 'out'}", "--size=32"]
    assert align.main([*arguments, f"--skip={words}"]) == 0
    out = capsys.readouterr().out
    assert "3 of 4 photographs aligned" in out and "1 skipped (1 skip list)" in out
    assert align.main([*arguments, f"--skip={tmp_path}"]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_without_the_extra_it_is_named_before_any_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "a.png")
    monkeypatch.setitem(sys.modules, "dlib", None)
    arguments = [f"--source={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=64"]
    assert align.main(arguments) == 2
    err = capsys.readouterr().err
    assert err == "error: dlib is not installed: pip install dlib-bin face-recognition-models\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_command_for_training_is_one_that_training_takes(tmp_path, capsys, monkeypatch, size):
    monkeypatch.setattr(alignment, "align_folder", lambda *_, **__: (3, []))
    out = tmp_path / "my faces"
    assert align.main([f"--source={tmp_path}", f"--output={out}", f"--size={size}"]) == 0
    found, *hints = capsys.readouterr().out.splitlines()
    assert found.startswith("3 of 3 photographs aligned") and len(hints) == (size in (64, 128))
    for hint in hints:
        command, config, path = shlex.split(hint.removeprefix("train on them: "))[2:]
        assert command == "pivq_jax.main" and path == f"--config.data.path={out}"
        config = load_config(config.removeprefix("--config=")).with_fields({"data.path": str(out)})
        assert config.data.image_size == size
        check_config(config, training=True)


def test_what_was_skipped_is_counted(tmp_path, capsys):
    pytest.importorskip("dlib")
    image = pytest.importorskip("skimage.data").astronaut()
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(np.zeros_like(image)).save(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "c.jpg").write_bytes(b"")
    arguments = [f"--source={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=64"]
    for _ in range(2):  # the second call does what is left, which is nothing
        assert align.main(arguments) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == f"1 of 3 photographs aligned at 64 pixels in {tmp_path / 'out'}"
        assert out[1] == "2 skipped (1 no face, 1 unreadable): see skipped.tsv there"
        assert out[2].startswith("train on them: python -m pivq_jax.main ") and len(out) == 3


@pytest.fixture
def faces(tmp_path):
    """Copies of a photograph with a face."""
    pytest.importorskip("dlib")
    image = Image.fromarray(pytest.importorskip("skimage.data").astronaut()[:260, 100:360])
    (tmp_path / "faces").mkdir()
    for i in range(4):
        image.save(tmp_path / "faces" / f"{i}.png")
    return tmp_path / "faces"
