"""Directories of images: splits, corrupt files, caching."""

import collections
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import builder, image_folder, layouts, load_dataset
from pivq_jax.data.builder import Entry
from pivq_jax.data.prepare import prepare_dataset
from pivq_jax.data.splits import assign_splits, in_splits

SPLITS = ("train", "validation", "test")


@pytest.fixture
def printed(capsys):
    """The lines about skipped images that were printed since the last call."""
    return lambda: [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]


def fill(root, count, start=0):
    """Writes images that differ in their grey value."""
    for i in range(start, start + count):
        path = root / f"part_{i % 3}" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + i % 5, 12), (i, i, i)).save(path)
    return root


def load(root, tmp_path, image_size=8, group=""):
    data_dir = tmp_path / "data"
    return load_dataset(
        "image_folder", image_size=image_size, path=root, data_dir=data_dir, group=group
    )


def greys(source):
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def test_every_image_is_in_exactly_one_split(tmp_path):
    data = load(fill(tmp_path / "faces", 60), tmp_path)
    found = [grey for split in SPLITS for grey in greys(getattr(data, split))]
    assert sorted(found) == list(range(60))
    assert data.factors == {}
    assert data.train[0].keys() == {"image"}
    assert data.train[0]["image"].shape == (8, 8, 3)
    assert data.train[0]["image"].dtype == np.uint8


def test_splits_are_80_10_10_and_depend_on_the_name_alone():
    names = [f"{i:06d}.jpg" for i in range(5000)]
    splits = assign_splits(names)
    counts = collections.Counter(splits.values())
    assert 3900 < counts["train"] < 4100
    assert 420 < counts["validation"] < 580
    assert 420 < counts["test"] < 580
    fewer = assign_splits(names[1000:2000])
    assert all(splits[name] == split for name, split in fewer.items())


def test_images_of_a_group_are_in_one_split(tmp_path):
    """Of persons with one to five photographs each, in one folder."""
    persons = {}
    (tmp_path / "faces").mkdir()
    for i in range(120):
        persons[i] = f"Person_{i // 3 if i % 5 else i}"
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / f"faces/{persons[i]}_{i:04d}.png")
    plain = load(tmp_path / "faces", tmp_path)
    data = load(tmp_path / "faces", tmp_path, group="(.*)_[0-9]+")
    shown = {split: greys(getattr(data, split)) for split in SPLITS}
    assert sorted(g for part in shown.values() for g in part) == list(range(120))
    groups = {split: {persons[grey] for grey in shown[split]} for split in SPLITS}
    assert all(groups.values())
    assert not groups["train"] & (groups["validation"] | groups["test"])
    assert not groups["validation"] & groups["test"]
    assert len(groups["train"]) > 0.7 * sum(map(len, groups.values()))

    # Without, nothing changes: neither the images nor where they are kept.
    assert plain.identity != data.identity
    assert load(tmp_path / "faces", tmp_path).identity == plain.identity
    assert len(list((tmp_path / "data").rglob("prepared.json"))) == 2
    kept = [json.loads(p.read_text()) for p in (tmp_path / "data").rglob("prepared.json")]
    assert sorted(manifest.get("group", "") for manifest in kept) == ["", "(.*)_[0-9]+"]


def test_a_group_that_is_no_person_is_warned_of(caplog):
    entries = [Entry(f"IMG_{i:04}.jpg", "", ()) for i in range(200)]
    entries += [Entry(f"Ada_Lovelace_{i}/1_{i}.jpg", "", ()) for i in range(300)]
    in_splits(entries, "(.*)_[0-9]+")
    assert "puts 200 of 500 images into one group, 'IMG': change it if these" in caplog.text
    caplog.clear()
    in_splits(entries[200:], "(.*)_[0-9]+")
    in_splits(entries, "")
    assert not caplog.text


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(", r"group is '\(', which is no regular expression \("),
        (".*_[0-9]+", r"must have a pair of parentheses"),
        ("(part_).*", r"by which the 9 images are in 1 group\(s\) \('part_', ...\)"),
    ],
)
def test_a_group_that_gives_no_splits_is_refused(tmp_path, group, message):
    root = fill(tmp_path / "faces", 9)
    with pytest.raises(InputError, match=message) as caught:
        load(root, tmp_path, group=group)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("prepared.json"))


@pytest.mark.parametrize("count", [3, 4, 5, 8, 13])
def test_tiny_sets_fill_every_split(count):
    for offset in range(40):
        splits = assign_splits([f"{offset + i}.png" for i in range(count)])
        assert len(splits) == count
        assert set(splits.values()) == set(SPLITS)


def test_odd_files_are_read_and_corrupt_ones_named_and_skipped(tmp_path, printed):
    root = fill(tmp_path / "faces", 6)
    Image.new("L", (9, 9), 100).save(root / "grey.jpg")
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(root / "alpha.png")
    Image.new("CMYK", (9, 9), (0, 0, 0, 155)).save(root / "cmyk.jpg")
    Image.new("RGB", (1, 1), (150, 150, 150)).save(root / "tiny.bmp")
    (root / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (root / "empty.jpg").touch()
    data = load(root, tmp_path)
    found = sorted(grey for split in SPLITS for grey in greys(getattr(data, split)))
    np.testing.assert_allclose(found, [0, 1, 2, 3, 4, 5, 100, 100, 150, 255], atol=2)
    lines = printed()
    assert len(lines) == 3
    assert "corrupt.png" in lines[0]
    assert "empty.jpg" in lines[1]
    assert lines[2] == f"2 of 12 images of {root} skipped"
    (manifest,) = (tmp_path / "data").rglob("prepared.json")
    assert [f"skipped: {line}" for line in json.loads(manifest.read_text())["skipped"]] == lines[:2]


def test_large_folders_are_streamed_and_skip_corrupt_files(tmp_path, monkeypatch, printed):
    monkeypatch.setattr(image_folder, "_FEW", 5)
    root = fill(tmp_path / "faces", 60)
    (root / "part_1" / "0004.png").write_bytes(b"broken")
    data = load(root, tmp_path)
    found = sorted(grey for split in SPLITS for grey in greys(getattr(data, split)))
    assert found == [i for i in range(60) if i != 4]
    assert "tensorflow" not in sys.modules
    line = "cannot read image part_1/0004.png: not an image of a known format"
    assert printed() == [f"skipped: {line}", f"1 of 60 images of {root} skipped"]
    (manifest,) = (tmp_path / "data").rglob("prepared.json")
    assert json.loads(manifest.read_text())["skipped"] == [line]


@pytest.mark.parametrize("few", [200, 1])
def test_only_corrupt_files_is_one_error_and_no_data_set(tmp_path, monkeypatch, few):
    monkeypatch.setattr(image_folder, "_FEW", few)
    root = tmp_path / "faces"
    root.mkdir()
    for i in range(30):
        (root / f"{i}.png").write_bytes(b"broken")
    message = "0 readable images in .*needs at least 3" if few == 200 else "none of the .* train"
    with pytest.raises(InputError, match=message):
        load(root, tmp_path)
    assert not list((tmp_path / "data").rglob("prepared.json"))


@pytest.fixture
def made(monkeypatch):
    """The names of the images that were read since the last call."""
    names = []
    read = layouts.read_image

    def counting(*arguments):
        names.append(arguments[-1].file)
        return read(*arguments)

    monkeypatch.setattr(layouts, "read_image", counting)

    def take():
        found = sorted(set(names))
        names.clear()
        return found

    return take


def test_prepared_data_is_kept_until_the_folder_changes(tmp_path, made):
    root = fill(tmp_path / "faces", 5)
    first = load(root, tmp_path)
    assert len(made()) == 5
    again = load(root, tmp_path)
    assert not made()
    assert greys(again.train) == greys(first.train)
    load(root, tmp_path, image_size=16)
    assert len(made()) == 5
    (root / "part_0" / "notes.txt").write_text("this changes the directory, not the images")
    load(root, tmp_path)
    assert not made()
    os.utime(root / "part_0" / "0000.png", ns=(0, 0))
    load(root, tmp_path)
    assert len(made()) == 5
    fill(root, 1, start=5)
    assert sum(len(getattr(load(root, tmp_path), split)) for split in SPLITS) == 6


def test_a_folder_may_hold_its_attributes(tmp_path, made):
    root = fill(tmp_path / "faces", 12)
    assert load(root, tmp_path).factors == {}
    assert len(made()) == 12
    rows = [f"part_{i % 3}/{i:04d}.png,{'ab'[i % 2]},unknown" for i in range(12)]
    (root / "attributes.csv").write_text("\n".join(["file,parity,hat", *rows]))
    data = load(root, tmp_path)
    assert data.factors == {"parity": ("a", "b"), "hat": ("unknown",)}
    assert len(made()) == 12
    for split in SPLITS:
        for example in getattr(data, split):
            assert example["parity"] == example["image"][0, 0, 0] % 2 and example["hat"] == 0
    load(root, tmp_path)
    assert not made()
    (root / "attributes.csv").write_text("\n".join(["file,odd,hat", *rows, "gone.png,a,yes"]))
    assert load(root, tmp_path).factors == {"odd": ("a", "b"), "hat": ("unknown",)}
    fill(root, 1, start=12)
    with pytest.raises(InputError, match=r"1 of the 13 images in .* are not in .*attributes.csv"):
        load(root, tmp_path)
    (root / "attributes.csv").rename(root / "part_0" / "attributes.csv")
    assert load(root, tmp_path).factors == {}


def test_attributes_in_the_folder_are_prepared_but_those_of_the_flag_come_first(tmp_path):
    root = fill(tmp_path / "faces", 6)
    rows = [f"part_{i % 3}/{i:04d}.png,{i}" for i in range(6)]
    (root / "attributes.csv").write_text("\n".join(["file,number", *rows]))
    (other := tmp_path / "other.csv").write_text("\n".join(["file,count", *rows]))
    for options, name in (({}, "number"), ({"attributes": other}, "count")):
        output = tmp_path / name
        manifest = prepare_dataset("image_folder", root, 8, output=output, **options)
        assert [*manifest["factors"]] == [name]


def test_a_stop_is_continued(tmp_path, monkeypatch, made):
    monkeypatch.setattr(builder, "_SHARD_IMAGES", 4)
    monkeypatch.setattr(image_folder, "_FEW", 1)
    root = fill(tmp_path / "faces", 40)
    counting = layouts.read_image
    last = (
        image_folder.list_folder(root).splits["test"][-1].file
    )  # of the last split, so written last

    def stopped(*arguments):
        if arguments[-1].file == last:
            raise KeyboardInterrupt
        return counting(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", stopped)
        with pytest.raises(KeyboardInterrupt):
            load(root, tmp_path)
    written = made()
    data = load(root, tmp_path)
    # Nothing is read twice but the rest of the interrupted shard.
    assert len(written) > 30 and len(set(made()) & set(written)) < 4
    assert sum(len(getattr(data, split)) for split in SPLITS) == 40
    assert not list((tmp_path / "data").rglob("*incomplete*"))


def test_a_folder_that_changes_while_it_is_listed_is_refused(tmp_path, monkeypatch):
    root = fill(tmp_path / "faces", 9)
    listing = image_folder.list_folder

    def late(source, **options):
        fill(root, 1, start=9)
        return listing(source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "list_folder", late)
        with pytest.raises(InputError, match="changed while it was read: run the command again"):
            load(root, tmp_path)
    assert sum(len(getattr(load(root, tmp_path), split)) for split in SPLITS) == 10


@pytest.mark.parametrize("few", [200, 1])
@pytest.mark.parametrize("grown", ["an image", "a new one"])
def test_a_folder_that_is_still_being_copied_is_refused(tmp_path, monkeypatch, few, grown):
    monkeypatch.setattr(image_folder, "_FEW", few)
    root, read_image, late = fill(tmp_path / "faces", 30), layouts.read_image, []
    last = root / "part_2" / "0029.png"
    whole = last.read_bytes()
    if grown == "an image":
        last.write_bytes(whole[:30])

    def copying(*arguments):
        if len(late) == 29:
            (root / "0030.png" if grown == "a new one" else last).write_bytes(whole)
        late.append(arguments[-1].file)
        return read_image(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", copying)
        with pytest.raises(InputError, match="faces changed while it was read: run the command"):
            load(root, tmp_path)
    made = (tmp_path / "data" / "image_folder").iterdir()
    assert not [path.name for path in made if not path.name.startswith(".")]
    data = load(root, tmp_path)
    assert sum(len(getattr(data, split)) for split in SPLITS) == 30 + (grown == "a new one")


@pytest.mark.parametrize("few", [200, 1])
def test_a_folder_that_goes_away_ends_the_preparation(tmp_path, monkeypatch, few):
    """Once it is back, no image is left out."""
    monkeypatch.setattr(image_folder, "_FEW", few)
    root, read_image, read = fill(tmp_path / "faces", 30), layouts.read_image, []

    def going(*arguments):
        read.append(arguments[-1].file)
        if len(read) == 30:  # the last one
            root.rename(tmp_path / "elsewhere")
        return read_image(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", going)
        with pytest.raises(FileNotFoundError) as error:
            load(root, tmp_path)
    assert len(read) == 30 and error.value.filename.endswith(read[-1])
    (tmp_path / "elsewhere").rename(root)
    data = load(root, tmp_path)
    assert sum(len(getattr(data, split)) for split in SPLITS) == 30


def test_names_in_no_encoding_are_names_too(tmp_path):
    (tmp_path / "faces").mkdir()
    os.rename(tmp_path / "faces", os.fsencode(tmp_path) + b"/f\xe9ces")
    root = fill(Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xe9ces")), 4)
    os.rename(root / "part_0" / "0000.png", os.fsencode(root) + b"/caf\xe9.png")
    assert sum(len(getattr(load(root, tmp_path), split)) for split in SPLITS) == 4
    listing = image_folder.list_folder(root, None)
    assert sum(len(entries) for entries in listing.splits.values()) == 4


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    images, taken = tmp_path / "images", tmp_path / "taken"
    images.mkdir()
    taken.touch()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(images / f"{name}.png")
    with pytest.raises(InputError, match=r"taken/.* cannot be written .*: name another directory"):
        load_dataset("image_folder", image_size=8, path=images, data_dir=taken / "cache")
