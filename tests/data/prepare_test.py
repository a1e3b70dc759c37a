"""The command that prepares data sets: contents, interruptions, and ways to fail."""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pivq_jax.data import builder, layouts, load_dataset, prepare
from pivq_jax.data.splits import assign_splits
from tests.data import official
from tests.data.conftest import (
    SOURCES,
    SPLITS,
    contents,
    examples,
    prepare_arguments,
    process_children,
)


def run(capsys, *arguments):
    """(exit status, standard output, lines of standard error) of the command, in this process."""
    status = prepare.main(["--workers=1", *arguments])
    out, err = capsys.readouterr()
    return status, out, [line for line in err.replace("\r", "\n").splitlines() if line.strip()]


def assert_refused(result, output, *words, status=2):
    """One `error:` line with the words, and nothing that could be taken for a data set."""
    code, out, err = result
    errors = [line for line in err if line.startswith("error: ")]
    assert code == status and not out and len(errors) == 1, result
    assert all(word in errors[0] for word in words), errors[0]
    assert not list(output.glob("*/*px"))


def central_square(file: Path, crop: int = 0) -> np.ndarray:
    """What should be stored, made another way: cropped, then resized."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    crop = crop or min(pixels.shape[:2])
    top, left = ((side - crop) // 2 for side in pixels.shape[:2])
    square = Image.fromarray(pixels[top : top + crop, left : left + crop])
    return np.asarray(square.resize((32, 32), Image.Resampling.LANCZOS))


def load(name, path, **options):
    return load_dataset(name, image_size=32, path=path, **options)


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    """Several shards of these few images, as the interrupted commands have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "_SHARD_IMAGES", 4)
        yield


@pytest.fixture(scope="module")
def prepared(sources, tmp_path_factory):
    """Every source, prepared without interruption, in one output directory."""
    output = tmp_path_factory.mktemp("prepared")
    for name in SOURCES:
        assert prepare.main(prepare_arguments(name, sources[name], output)) == 0
    return output


@pytest.mark.parametrize("name", ["celeba", "celeba_hq"])
def test_splits_attributes_and_pixels_are_the_official_ones(prepared, sources, name):
    data = load(name, prepared)
    assert [*data.factors.items()] == [(name, ("no", "yes")) for name in official.ATTRIBUTES]
    parts = {split: examples(getattr(data, split)) for split in SPLITS}
    assert all(parts.values())
    for index, split in enumerate(official.partition(SOURCES[name][1])):
        file = f"CelebA-HQ-img/{index}.jpg"
        if name == "celeba":
            file = f"img_align_celeba/{index + 1:06d}.jpg"
        example = parts[SPLITS[split]].pop(0)
        np.testing.assert_array_equal(example.pop("image"), central_square(sources[name] / file))
        assert example == {n: official.attribute(index, i) for i, n in enumerate(data.factors)}
    assert not any(parts.values())


def test_ffhq_is_split_by_number_tested_on_validation_images_and_read_at_smaller_sizes(
    prepared, sources
):
    data, small = load("ffhq", prepared), load_dataset("ffhq", image_size=16, path=prepared)
    assert data.factors == {} and (len(data.train), len(data.validation)) == (30, 6)
    assert data.test is data.validation
    files = sorted((sources["ffhq"] / "thumbnails128x128").rglob("*.png"))
    assert files[30].name == "60000.png"
    for file, example in zip(files, [*examples(data.train), *examples(data.validation)]):
        np.testing.assert_array_equal(example["image"], central_square(file))
    resized = Image.fromarray(data.train[3]["image"]).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(small.train[3]["image"], np.asarray(resized))


def test_no_person_of_lfw_is_in_two_splits(prepared, sources):
    """By the pixels: what is in each split is where the persons' hashes put it."""
    files = sources["lfw"].rglob("*.jpg")
    persons = {central_square(file).tobytes(): file.parent.name for file in files}
    split_of = assign_splits(sorted({*persons.values()}))
    data, found = load("lfw", prepared), []
    for split in SPLITS:
        names = [persons[example["image"].tobytes()] for example in examples(getattr(data, split))]
        assert {split_of[name] for name in names} == {split}
        found += names
    assert len(found) == SOURCES["lfw"][1] and len({*found}) == len(split_of) > 10


@pytest.mark.parametrize(
    "name, size, words",
    [
        ("lfw", 32, "configs/faces.py takes a --size of 64 or more"),
        ("lfw", 64, "python -m pivq_jax.main --config=configs/faces.py --config.data.name=lfw"),
        ("image_folder", 36, "a multiple of 8"),
        ("image_folder", 40, "--config=configs/image_folder.py --config.data.image_size=40"),
    ],
)
def test_the_command_for_training_or_what_it_needs_is_printed(
    sources, tmp_path, capsys, name, size, words
):
    arguments = prepare_arguments(name, sources[name], tmp_path)
    status, out, _ = run(capsys, *arguments, f"--size={size}")
    assert status == 0 and words in out and ("train on it" in out) == (size in (64, 40))


def test_a_folder_has_the_groups_of_the_flag_and_no_others(sources, tmp_path, capsys):
    arguments = prepare_arguments("image_folder", sources["image_folder"], tmp_path)
    group = "part_[0-9]/([0-9]).*"  # by the first digit, in whatever folder
    assert run(capsys, *arguments, f"--group={group}")[0] == 0
    data = load("image_folder", tmp_path, group=group)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and "made with another group" in err[-1]
    with pytest.raises(prepare.InputError, match="was prepared with --group='part") as refusal:
        load("image_folder", tmp_path, group="(.*)_[0-9]+")
    assert "--config.data.group=''" in str(refusal.value)
    assert load("image_folder", tmp_path).identity == data.identity


def test_a_folder_has_the_splits_of_first_use_and_the_attributes_of_the_csv(prepared, sources):
    source = sources["image_folder"]
    data = load("image_folder", prepared)
    on_first_use = load("image_folder", source, data_dir=prepared / "first use")
    assert data.factors == {"hair": ("black", "red"), "number of eyes": ("2", "10")}
    numbers = {central_square(file).tobytes(): int(file.stem) for file in source.rglob("*.??g")}
    for split in SPLITS:
        labelled = examples(getattr(data, split))
        for example, plain in zip(labelled, examples(getattr(on_first_use, split)), strict=True):
            np.testing.assert_array_equal(example["image"], plain["image"])
            index = numbers.pop(example["image"].tobytes())
            assert example["hair"] == 1 - official.attribute(index, 0)  # red comes after black
            assert example["number of eyes"] == official.attribute(index, 1)
    assert not numbers


def test_tensorflow_datasets_reads_it_alike(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared / "celeba" / "32px")
    theirs = builder.as_data_source("test")[1]
    ours = load("celeba", prepared).test[1]
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value)
    assert builder.info.features["5_o_Clock_Shadow"].names == ["no", "yes"]


def test_a_source_that_changes_while_it_is_read_or_after_it_is_refused(
    make_source, tmp_path, capsys, monkeypatch
):
    source, read_image = make_source("image_folder"), layouts.read_image
    arguments = prepare_arguments("image_folder", source, tmp_path)
    image = next(source.rglob("*.png"))

    def growing(*arguments):
        Image.new("RGB", (50, 50), "red").save(image)
        return read_image(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", growing)
        result = run(capsys, *arguments)
    assert_refused(result, tmp_path, "changed while it was read: run the command again")
    assert run(capsys, *arguments)[0] == run(capsys, *arguments)[0] == 0
    Image.new("RGB", (60, 60), "red").save(image)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and len(err) == 1
    assert f"the images in {source} have changed since {tmp_path}" in err[0]


# A pipe is listed too, see `held_at`.
SCRIPT = """
import resource, stat, sys
stat.S_ISREG = lambda mode: not stat.S_ISDIR(mode)
from pivq_jax.data import builder, prepare
builder._SHARD_IMAGES, builder._IMAGES_PER_WORKER = 4, 1
{before}
sys.exit(prepare.main([*{arguments}, "--workers=1"]))
"""


@contextlib.contextmanager
def held_at(file: Path):
    """Reading this image takes until the end of the block."""
    content, stat = file.read_bytes(), file.stat()
    file.unlink()
    os.mkfifo(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a waiting reader gets nothing and continues
            os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
        file.unlink()
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_stop_ends_all_processes_and_the_same_command_goes_on_to_the_same_bytes(
    commands, sources, prepared, tmp_path, capsys, number
):
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path)
    target = tmp_path / "celeba" / "32px"
    part, done = (target.with_name(".32px.incomplete") / folder for folder in ("data", "done"))
    workers: list[int] = []

    def has_begun_a_later_shard() -> bool:
        """The worker waits for an image of it."""
        workers[:] = process_children(command.pid)
        return len(list(done.glob("*"))) >= 2 and bool(list(part.glob(".*.part")))

    with held_at(sources["celeba"] / "img_align_celeba" / "000020.jpg"):
        command = commands.start(code=SCRIPT.format(arguments=arguments, before=""))
        command.kill_when(has_begun_a_later_shard, number)
        stopped = command.wait()
        whole = {file: file.stat().st_mtime_ns for file in part.glob("[!.]*.array_record*")}
    if number == signal.SIGINT:
        assert stopped.code == 130 and "the same command continues" in stopped.stderr
        assert "Traceback" not in stopped.stderr
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker is left behind"
        time.sleep(0.01)
    assert workers and len(whole) >= 2 and not target.exists()

    assert run(capsys, *arguments)[0] == 0
    assert contents(target) == contents(prepared / "celeba" / "32px")
    assert not list(target.parent.glob("*incomplete*"))
    for file, changed in whole.items():  # it was not made again
        assert (target / file.name).stat().st_mtime_ns == changed


def test_a_full_disk_is_one_error_and_can_be_mended(commands, sources, tmp_path, capsys):
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    done = commands.run(code=SCRIPT.format(arguments=arguments, before=limit))
    result = done.code, done.stdout, done.stderr.replace("\r", "\n").splitlines()
    assert_refused(result, tmp_path, "File too large", "continues", status=1)
    assert "Traceback" not in done.stderr
    assert run(capsys, *arguments)[0] == 0
    assert len(load("celeba", tmp_path).train) == 32


def test_few_broken_images_are_skipped_counted_and_listed(make_source, tmp_path, capsys):
    source = make_source("celeba", 120)
    broken = source / "img_align_celeba" / "000050.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    status, out, err = run(capsys, *prepare_arguments("celeba", source, tmp_path))
    assert status == 0 and "79 train, 20 validation, 20 test" in out and "1 images skipped" in out
    assert [line for line in err if line.startswith("skipped: ") and "000050.jpg" in line]
    train = load("celeba", tmp_path).train
    assert len(train) == 79
    after = central_square(broken.with_name("000051.jpg"))
    np.testing.assert_array_equal(train[49]["image"], after)
    manifest = json.loads((tmp_path / "celeba" / "32px" / "prepared.json").read_text())
    (line,) = manifest["skipped"]
    assert "000050.jpg" in line


def test_the_archive_gives_what_the_folder_gives_and_damage_is_named(
    make_source, prepared, tmp_path, capsys
):
    source = make_source("celeba", zipped=True)
    assert run(capsys, *prepare_arguments("celeba", source, tmp_path / "whole"))[0] == 0
    ours, theirs = (contents(root / "celeba/32px") for root in (tmp_path / "whole", prepared))
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {"prepared.json"}

    archive = source / "img_align_celeba.zip"
    content = bytearray(archive.read_bytes())
    middle = content.index(b"000010.jpg") + 500
    content[middle : middle + 8] = bytes(8)
    archive.write_bytes(content)
    result = run(capsys, *prepare_arguments("celeba", source, tmp_path / "out"))
    words = "more than 1 % of the 48 images", "000010.jpg", "CRC"
    assert_refused(result, tmp_path / "out", *words)
    os.truncate(archive, len(content) * 2 // 3)
    result = run(capsys, *prepare_arguments("celeba", source, tmp_path / "out"))
    assert_refused(result, tmp_path / "out", ".zip is not a complete zip archive", "again")


def test_an_empty_split_is_refused(make_source, tmp_path, capsys):
    source = make_source("ffhq", 4)
    shutil.rmtree(source / "thumbnails128x128" / "60000")
    result = run(capsys, *prepare_arguments("ffhq", source, tmp_path))
    assert_refused(result, tmp_path, "no validation image of ffhq in", "give a complete source")


@pytest.mark.parametrize(
    ("name", "file", "shape"),
    [
        ("celeba", "img_align_celeba/000003.jpg", "178 x 218"),
        ("celeba_hq", "CelebA-HQ-img/3.jpg", "1024 x 1024"),
    ],
)
def test_an_image_that_is_not_aligned_is_refused(make_source, tmp_path, capsys, name, file, shape):
    source = make_source(name, 4)
    Image.new("RGB", (409, 687)).save(source / file)
    result = run(capsys, *prepare_arguments(name, source, tmp_path))
    assert_refused(result, tmp_path, Path(file).name, f"409 x 687 pixels, not {shape}")


def test_the_crop_is_central_and_another_one_needs_another_output(sources, tmp_path, capsys):
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path)
    assert run(capsys, *arguments, "--crop=148")[0] == 0
    train = load("celeba", tmp_path).train
    file = sources["celeba"] / "img_align_celeba" / "000003.jpg"
    np.testing.assert_array_equal(train[2]["image"], central_square(file, 148))
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and "made with another crop" in err[-1]
    assert run(capsys, *arguments, "--crop=148")[0] == 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--size=200"], "--size is 200, but the central squares of img_align_celeba have 178"),
        (["--size=160", "--crop=148"], "have 148 pixels"),
        (["--size=4"], "--size is 4: it must be at least 8"),
        (["--crop=180"], "--crop is 180: the images of celeba have 178 x 218"),
        (["--crop=-1"], "--crop is -1"),
        (["--workers=0"], "--workers is 0"),
        (["--attributes=x.csv"], "--attributes is for image_folder"),
        (["--group=(.*)_[0-9]+"], "--group is for image_folder"),
        (["--source=/nowhere"], "no directory /nowhere: give a directory with img_align_celeba"),
    ],
)
def test_wrong_values_are_refused_before_any_work(sources, tmp_path, capsys, flags, message):
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path)
    assert_refused(run(capsys, *arguments, *flags), tmp_path, message)
    assert not list(tmp_path.iterdir())
