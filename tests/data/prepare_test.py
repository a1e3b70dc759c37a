"""The command that prepares data sets: contents, interruptions, and every way to fail."""

import contextlib
import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pivq_jax.data import builder, images, layouts, load_dataset, prepare
from pivq_jax.data.splits import assign_splits
from tests.conftest import ended
from tests.data import official
from tests.data.conftest import SOURCES, contents, prepare_arguments, process_children

SPLITS = ("train", "validation", "test")


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
    for word in words:
        assert word in errors[0], errors[0]
    assert not [path for path in output.rglob("*px") if not path.name.startswith(".")]
    assert not list(output.rglob("prepared.json")) and not list(output.rglob("dataset_info.json"))


def central_square(file: Path, crop: int, size: int) -> np.ndarray:
    """What should be stored, made another way: cropped, then resized."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    crop = crop or min(pixels.shape[:2])
    top, left = ((side - crop) // 2 for side in pixels.shape[:2])
    square = Image.fromarray(pixels[top : top + crop, left : left + crop])
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def expected(name: str, source: Path, count: int) -> dict[str, list[tuple[Path, dict[str, int]]]]:
    """The images of each split of an official source made of `count`, with their attributes."""
    splits: dict[str, list] = {split: [] for split in SPLITS}
    for index, split in enumerate(official.partition(count)):
        file = f"img_align_celeba/{index + 1:06d}.jpg"
        if name == "celeba_hq":
            file = f"CelebA-HQ-img/{index}.jpg"
        values = {n: official.attribute(index, i) for i, n in enumerate(official.ATTRIBUTES)}
        splits[SPLITS[split]].append((source / file, values))
    return splits


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
    data = load_dataset(name, image_size=32, path=prepared)
    assert data.factors == dict.fromkeys(official.ATTRIBUTES, ("no", "yes"))
    assert list(data.factors) == list(official.ATTRIBUTES)
    for split, wanted in expected(name, sources[name], SOURCES[name][1]).items():
        source = getattr(data, split)
        assert len(source) == len(wanted) > 0
        for i, (file, attributes) in enumerate(wanted):
            example = source[i]
            np.testing.assert_array_equal(example.pop("image"), central_square(file, 0, 32))
            assert example == attributes
            assert all(type(value) is int for value in example.values())


def test_ffhq_is_split_by_number_and_validation_serves_as_test(prepared, sources):
    data = load_dataset("ffhq", image_size=32, path=prepared)
    assert data.factors == {} and (len(data.train), len(data.validation)) == (30, 6)
    assert data.test is data.validation
    files = sorted((sources["ffhq"] / "thumbnails128x128").rglob("*.png"))
    for source, part in ((data.train, files[:30]), (data.validation, files[30:])):
        for i, file in enumerate(part):
            np.testing.assert_array_equal(source[i]["image"], central_square(file, 0, 32))
    assert files[30].name == "60000.png"


def test_no_person_of_lfw_is_in_two_splits(prepared, sources):
    """By the pixels: what is in each split is where the persons' hashes put it."""
    data = load_dataset("lfw", image_size=32, path=prepared)
    assert data.factors == {}
    persons = {
        central_square(file, 0, 32).tobytes(): file.parent.name
        for file in sources["lfw"].rglob("*.jpg")
    }
    found = {}
    for split in SPLITS:
        source = getattr(data, split)
        found[split] = [persons[source[i]["image"].tobytes()] for i in range(len(source))]
    assert sum(map(len, found.values())) == SOURCES["lfw"][1]
    assert sum(len(set(names)) for names in found.values()) == len(set(persons.values())) > 10
    expected = assign_splits(sorted(set(persons.values())))
    assert all(expected[name] == split for split, names in found.items() for name in names)


def test_the_command_for_lfw(sources, tmp_path, capsys):
    arguments = prepare_arguments("lfw", sources["lfw"], tmp_path)
    status, out, _ = run(capsys, *arguments, "--crop=150")
    assert status == 0 and "configs/faces.py takes a --size of 64 or more" in out
    larger = run(capsys, *prepare_arguments("lfw", sources["lfw"], tmp_path / "64"), "--size=64")
    assert "train on it: python -m pivq_jax.main --config=configs/faces.py" in larger[1]
    assert "--config.data.name=lfw" in larger[1] and "--size of" not in larger[1]
    assert_refused(run(capsys, *arguments, "--size=260"), tmp_path / "no", "--size is 260", "250")


@pytest.mark.parametrize("size, words", [("36", "a multiple of 8"), ("40", "image_size=40")])
def test_the_command_for_a_folder_is_one_that_training_accepts(
    make_source, tmp_path, capsys, size, words
):
    arguments = prepare_arguments("image_folder", make_source("image_folder"), tmp_path)
    status, out, _ = run(capsys, *arguments, f"--size={size}")
    assert status == 0 and words in out and ("train on it" in out) == (size == "40")


def test_a_folder_is_split_by_group(make_source, tmp_path, capsys):
    arguments = prepare_arguments("image_folder", make_source("image_folder"), tmp_path)
    group = "part_[0-9]/([0-9]).*"  # by the first digit, in whatever folder
    assert run(capsys, *arguments, f"--group={group}")[0] == 0
    data = load_dataset("image_folder", image_size=32, path=tmp_path, group=group)
    # Another one is refused, by `prepare` and on opening.
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and "made with another group" in err[-1]
    with pytest.raises(prepare.InputError, match="was prepared with --group='part") as refusal:
        load_dataset("image_folder", image_size=32, path=tmp_path, group="(.*)_[0-9]+")
    assert "--config.data.group=''" in str(refusal.value)
    assert load_dataset("image_folder", image_size=32, path=tmp_path).identity == data.identity


def test_a_folder_keeps_its_splits_and_has_the_attributes_of_the_csv(prepared, sources):
    name, count = "image_folder", SOURCES["image_folder"][1]
    data = load_dataset(name, image_size=32, path=prepared)
    assert data.factors == {"hair": ("black", "red"), "number of eyes": ("2", "10")}
    on_first_use = load_dataset(
        name, image_size=32, path=sources[name], data_dir=prepared / "first use"
    )
    total = 0
    for split in SPLITS:
        with_labels, plain = getattr(data, split), getattr(on_first_use, split)
        assert len(with_labels) == len(plain) > 0
        total += len(plain)
        for i in range(len(plain)):
            np.testing.assert_array_equal(with_labels[i]["image"], plain[i]["image"])
    assert total == count
    files = {
        central_square(file, 0, 32).tobytes(): int(file.stem)
        for file in sources[name].rglob("*.??g")
    }
    for example in (data.train[i] for i in range(len(data.train))):
        index = files[example["image"].tobytes()]
        assert (
            data.factors["hair"][example["hair"]] == ("red", "black")[official.attribute(index, 0)]
        )
        eyes = data.factors["number of eyes"][example["number of eyes"]]
        assert eyes == ("2", "10")[official.attribute(index, 1)]


def test_tensorflow_datasets_reads_it_alike(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared / "celeba" / "32px")
    theirs = builder.as_data_source("test")[1]
    ours = load_dataset("celeba", image_size=32, path=prepared).test[1]
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value)
    assert builder.info.features["5_o_Clock_Shadow"].names == ["no", "yes"]


def test_an_image_folder_that_has_changed_is_not_taken_for_what_was_prepared(
    make_source, tmp_path, capsys
):
    source = make_source("image_folder")
    arguments = prepare_arguments("image_folder", source, tmp_path)
    assert run(capsys, *arguments)[0] == run(capsys, *arguments)[0] == 0
    Image.new("RGB", (50, 50), "red").save(next(source.rglob("*.png")))
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and len(err) == 1
    target = tmp_path / "image_folder" / "32px"
    message = (
        f"the images in {source} have changed since {target} was made of them: delete {target}"
    )
    assert message in err[0] and "or choose another --output" in err[0]


@pytest.mark.parametrize("name", ["ffhq", "image_folder"])
def test_a_source_that_changes_while_it_is_read_is_refused(
    make_source, tmp_path, capsys, monkeypatch, name
):
    source, read_image = make_source(name), layouts.read_image

    def copying(root, *arguments):
        image = min(Path(root).rglob("*.png"))
        shutil.copyfile(image, image.with_name("69999.png"))
        return read_image(root, *arguments)

    arguments = [*prepare_arguments(name, source, tmp_path / "data"), "--workers=1"]
    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", copying)
        assert prepare.main(arguments) == 2
    assert "changed while it was read: run the command again" in capsys.readouterr().err
    assert not list((tmp_path / "data").glob("*/*/prepared.json"))


def test_a_smaller_size_is_resized_on_reading(prepared):
    stored = load_dataset("ffhq", image_size=32, path=prepared).train[3]["image"]
    small = load_dataset("ffhq", image_size=16, path=prepared).train[3]["image"]
    resized = Image.fromarray(stored).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(small, np.asarray(resized))


# A pipe is listed too, see `held_at`.
SCRIPT = """
import resource, stat, sys
stat.S_ISREG = lambda mode: not stat.S_ISDIR(mode)
from pivq_jax.data import builder, prepare
builder._SHARD_IMAGES, builder._IMAGES_PER_WORKER = 4, 1
{before}
sys.exit(prepare.main({arguments}))
"""


def script(arguments, before=""):
    return SCRIPT.format(arguments=[*arguments, "--workers=1"], before=before)


def wait_until(condition, command=None):
    """Waits up to ten minutes, and not beyond the end of a command."""
    deadline = time.monotonic() + 600
    while not condition():
        came = time.monotonic() < deadline and (command is None or not ended(command.pid))
        assert came, "it never happened"
        time.sleep(0.01)


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


def interrupt(commands, name, source, output, number):
    """Starts the command and stops it by a signal at an image in the middle of the work."""
    images = sorted(p for p in source.rglob("*") if p.suffix in (".jpg", ".png"))
    # In the third to the fifth shard; the order of other data sets is that of hashes.
    index = {"celeba": 19, "ffhq": 13}.get(name, 30)
    with held_at(images[index]):
        command = commands.start(code=script(prepare_arguments(name, source, output)))
        done = output / name / ".32px.incomplete" / "done"
        part = done.parent / "data"
        # The worker has begun the shard with the image it waits for.
        wait_until(lambda: len(list(done.glob("*"))) >= 2 and list(part.glob(".*.part")), command)
        time.sleep(0.1)
        workers = process_children(command.pid)
        os.kill(command.pid, number)
        finished = command.wait()
        kept = {p.name: p.stat().st_mtime_ns for p in part.glob("[!.]*.array_record*")}
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    return finished, kept, len(workers)


def assert_same_bytes(capsys, name, sources, prepared, output, kept):
    """The same command goes on from what an interrupted one left."""
    assert len(kept) >= 2 and not (output / name / "32px").exists()
    with pytest.raises(prepare.InputError, match=r"not prepared|holds 0 images"):
        load_dataset(name, image_size=32, path=output)

    status, out, _ = run(capsys, *prepare_arguments(name, sources[name], output))
    assert status == 0 and out
    assert contents(output / name / "32px") == contents(prepared / name / "32px")
    assert not list((output / name).glob("*incomplete*"))
    # What was whole was not made again.
    for file, changed in kept.items():
        assert (output / name / "32px" / file).stat().st_mtime_ns == changed


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(commands, sources, prepared, tmp_path, capsys):
    source = sources["image_folder"]
    finished, kept, workers = interrupt(commands, "image_folder", source, tmp_path, signal.SIGKILL)
    assert finished.code == -signal.SIGKILL and workers >= 1
    assert_same_bytes(capsys, "image_folder", sources, prepared, tmp_path, kept)


def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on(
    commands, sources, prepared, tmp_path, capsys
):
    finished, kept, _ = interrupt(commands, "celeba", sources["celeba"], tmp_path, signal.SIGINT)
    assert finished.code == 130 and "the same command continues" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert_same_bytes(capsys, "celeba", sources, prepared, tmp_path, kept)


@pytest.mark.slow
def test_a_changed_image_is_made_again_after_a_stop(commands, make_source, tmp_path, capsys):
    source = make_source("ffhq")
    interrupt(commands, "ffhq", source, tmp_path / "out", signal.SIGKILL)
    first = source / "thumbnails128x128" / "00000" / "00001.png"
    Image.new("RGB", (128, 128), "red").save(first)
    assert run(capsys, *prepare_arguments("ffhq", source, tmp_path / "out"))[0] == 0
    data = load_dataset("ffhq", image_size=32, path=tmp_path / "out")
    assert (data.train[1]["image"] == (255, 0, 0)).all()


def test_a_full_disk_is_one_error_and_can_be_mended(commands, sources, tmp_path, capsys):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path / "out")
    done = commands.run(code=script(arguments, limit))
    err = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
    assert_refused(
        (done.code, done.stdout, err), tmp_path / "out", "File too large", "continues", status=1
    )
    assert "Traceback" not in done.stderr
    assert run(capsys, *arguments)[0] == 0
    assert len(load_dataset("celeba", image_size=32, path=tmp_path / "out").train) == 32


def test_a_dead_worker_is_an_error_not_a_hang(commands, sources, tmp_path):
    source, output = sources["celeba"], tmp_path
    with held_at(source / "img_align_celeba" / "000005.jpg"):
        command = commands.start(code=script(prepare_arguments("celeba", source, output)))
        wait_until(lambda: list(output.rglob(".*-00001-of-*.part")), command)
        for pid in process_children(command.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        done = command.wait()
    assert done.code == 1 and "error: a worker process ended with status -9" in done.stderr


def test_few_broken_images_are_skipped_counted_and_listed(make_source, tmp_path, capsys):
    source = make_source("celeba", 120)
    broken = source / "img_align_celeba" / "000050.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    status, out, err = run(capsys, *prepare_arguments("celeba", source, tmp_path))
    assert status == 0 and "79 train, 20 validation, 20 test" in out and "1 images skipped" in out
    assert [line for line in err if line.startswith("skipped: ") and "000050.jpg" in line]
    data = load_dataset("celeba", image_size=32, path=tmp_path)
    assert len(data.train) == 79
    after = central_square(broken.with_name("000051.jpg"), 0, 32)
    np.testing.assert_array_equal(data.train[49]["image"], after)
    manifest = json.loads((tmp_path / "celeba" / "32px" / "prepared.json").read_text())
    (line,) = manifest["skipped"]
    assert "000050.jpg" in line


def test_storage_that_fails_leaves_no_image_out_for_good(
    make_source, tmp_path, capsys, monkeypatch
):
    source, broken = make_source("image_folder"), []

    def read(path, *arguments, **options):
        if len(broken) < 3:
            broken.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(path))
        return open(path, *arguments, **options)

    arguments = [*prepare_arguments("image_folder", source, tmp_path), "--workers=1"]
    monkeypatch.setattr(images, "open", read, raising=False)
    status, _, err = run(capsys, *arguments)
    assert status == 1 and "Input/output error" in err[-1] and broken[0] in err[-1]
    monkeypatch.undo()
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and "0 images skipped" in out


def test_the_archive_gives_what_the_folder_gives(make_source, prepared, tmp_path, capsys):
    source = make_source("celeba", zipped=True)
    assert run(capsys, *prepare_arguments("celeba", source, tmp_path))[0] == 0
    ours, theirs = (contents(root / "celeba" / "32px") for root in (tmp_path, prepared))
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {"prepared.json"}


def test_a_truncated_archive_is_named(make_source, tmp_path, capsys):
    source = make_source("celeba", zipped=True)
    archive = source / "img_align_celeba.zip"
    os.truncate(archive, archive.stat().st_size * 2 // 3)
    result = run(capsys, *prepare_arguments("celeba", source, tmp_path))
    assert_refused(result, tmp_path, "img_align_celeba.zip is not a complete zip archive", "again")


def test_damage_within_an_archive_is_a_broken_image(make_source, tmp_path, capsys):
    source = make_source("celeba", zipped=True)
    archive = source / "img_align_celeba.zip"
    content = bytearray(archive.read_bytes())
    middle = content.index(b"000010.jpg") + 500
    content[middle : middle + 8] = bytes(8)
    archive.write_bytes(content)
    result = run(capsys, *prepare_arguments("celeba", source, tmp_path))
    assert_refused(result, tmp_path, "more than 1 % of the 48 images", "000010.jpg", "CRC")


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
        ("ffhq", "thumbnails128x128/00000/00002.png", "128 x 128"),
    ],
)
def test_an_image_that_is_not_aligned_is_refused(make_source, tmp_path, capsys, name, file, shape):
    source = make_source(name, 4)
    Image.new("RGB", (409, 687)).save(source / file)
    result = run(capsys, *prepare_arguments(name, source, tmp_path))
    assert_refused(result, tmp_path, Path(file).name, f"409 x 687 pixels, not {shape}")


def test_the_crop_is_central(sources, tmp_path, capsys):
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path)
    assert run(capsys, *arguments, "--crop=148")[0] == 0
    data = load_dataset("celeba", image_size=32, path=tmp_path)
    file = sources["celeba"] / "img_align_celeba" / "000003.jpg"
    np.testing.assert_array_equal(data.train[2]["image"], central_square(file, 148, 32))
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and "made with another crop" in err[-1]
    assert run(capsys, *arguments, "--crop=148")[0] == 0


WRONG = {
    "too large": (["--size=200"], ["--size is 200", "178"]),
    "larger than the crop": (["--size=160", "--crop=148"], ["--size is 160", "148"]),
    "crop": (["--crop=180"], ["--crop is 180", "178 x 218"]),
    "negative crop": (["--crop=-1"], ["--crop is -1"]),
    "tiny": (["--size=4"], ["--size is 4", "at least 8"]),
    "workers": (["--workers=0"], ["--workers is 0"]),
    "attributes": (["--attributes=x.csv"], ["--attributes is for image_folder"]),
    "group": (["--group=(.*)_[0-9]+"], ["--group is for image_folder: celeba has splits of its"]),
    "source": (["--source=/nowhere"], ["no directory /nowhere", "img_align_celeba"]),
    "file": ([f"--source={__file__}"], ["is a file"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_values_are_refused_before_any_work(sources, tmp_path, capsys, wrong):
    extra, words = WRONG[wrong]
    arguments = prepare_arguments("celeba", sources["celeba"], tmp_path)
    assert_refused(run(capsys, *arguments, *extra), tmp_path, *words)
    assert not list(tmp_path.iterdir())
