"""Directories of images: splits, groups, attributes, corrupt files, and what is prepared again."""

import collections
import itertools
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import builder, image_folder, layouts, load_dataset
from pivq_jax.data.builder import Entry
from pivq_jax.data.prepare import prepare_dataset
from pivq_jax.data.splits import assign_splits, in_splits
from tests.data.conftest import SPLITS, examples


def fill(root, count, start=0):
    """Writes images that differ in their grey value."""
    for i in range(start, start + count):
        path = root / f"part_{i % 3}" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + i % 5, 12), (i, i, i)).save(path)
    return root


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "faces", 30)


def load(root, image_size=8, group=""):
    data_dir = root.parent / "data"
    options = {"image_size": image_size, "data_dir": data_dir, "group": group}
    return load_dataset("image_folder", path=root, **options)


def greys(data):
    """The grey values of each split."""
    pixels = {s: [e["image"][0, 0, 0] for e in examples(getattr(data, s))] for s in SPLITS}
    return {split: list(map(int, values)) for split, values in pixels.items()}


def all_greys(data):
    return sorted(itertools.chain.from_iterable(greys(data).values()))


def manifests(root):
    found = (root.parent / "data").rglob("prepared.json")
    return [json.loads(path.read_text()) for path in found]


def test_splits_are_80_10_10_and_depend_on_the_name_alone():
    names = [f"{i:06d}.jpg" for i in range(5000)]
    splits = assign_splits(names)
    counts = collections.Counter(splits.values())
    assert 3900 < counts["train"] < 4100
    assert 420 < counts["validation"] < 580
    assert 420 < counts["test"] < 580
    fewer = assign_splits(names[1000:2000])
    assert all(splits[name] == split for name, split in fewer.items())


@pytest.mark.parametrize("count", [3, 4, 13])
def test_tiny_sets_fill_every_split(count):
    for offset in range(40):
        splits = assign_splits([f"{offset + i}.png" for i in range(count)])
        assert len(splits) == count and set(splits.values()) == set(SPLITS)


def test_images_of_a_group_are_in_one_split(tmp_path):
    """Of persons with one to five photographs each, in one folder."""
    (root := tmp_path / "faces").mkdir()
    persons = [f"Person_{i // 3 if i % 5 else i}" for i in range(120)]
    for i, person in enumerate(persons):
        Image.new("RGB", (9, 9), (i, i, i)).save(root / f"{person}_{i:04d}.png")
    plain, data = load(root), load(root, group="(.*)_[0-9]+")
    assert all_greys(data) == all_greys(plain) == list(range(120))
    groups = [{persons[grey] for grey in part} for part in greys(data).values()]
    assert sum(map(len, groups)) == len(set(persons)) and min(map(len, groups)) > 0
    assert plain.identity != data.identity == load(root, group="(.*)_[0-9]+").identity
    assert load(root).identity == plain.identity
    assert sorted(each.get("group", "") for each in manifests(root)) == ["", "(.*)_[0-9]+"]


def test_a_group_that_is_no_person_is_warned_of(caplog):
    entries = [Entry(f"IMG_{i:04}.jpg", "", ()) for i in range(200)]
    entries += [Entry(f"Ada_Lovelace_{i}/1_{i}.jpg", "", ()) for i in range(300)]
    entries += [Entry("ada.jpg", "", ())]
    in_splits(entries, "(.*)_[0-9]+")
    assert "puts 200 of 501 images into one group, 'IMG': change it if these" in caplog.text
    assert "does not match 1 of 501 images" in caplog.text
    caplog.clear()
    in_splits(entries[200:-1], "(.*)_[0-9]+")
    in_splits(entries, "")
    assert not caplog.text


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(", r"group is '\(', which is no regular expression \("),
        (".*_[0-9]+", r"must have a pair of parentheses"),
        ("(part_).*", r"by which the 30 images are in 1 group\(s\) \('part_', ...\)"),
    ],
)
def test_a_group_that_gives_no_splits_is_refused(root, group, message):
    with pytest.raises(InputError, match=message):
        load(root, group=group)
    assert not manifests(root)


def test_odd_files_are_read_and_corrupt_ones_named_and_skipped(tmp_path, capsys):
    root = fill(tmp_path / "faces", 6)
    Image.new("L", (9, 9), 100).save(root / "grey.jpg")
    Image.new("CMYK", (9, 9), (0, 0, 0, 155)).save(root / "cmyk.jpg")
    Image.new("RGB", (1, 1), (150, 150, 150)).save(root / "tiny.bmp")
    Image.new("RGB", (9, 9), "white").save(os.fsencode(root) + b"/caf\xe9.png")  # no UTF-8
    (root / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (root / "empty.jpg").touch()
    data = load(root)
    assert data.factors == {} and data.train[0].keys() == {"image"}
    assert data.train[0]["image"].shape == (8, 8, 3) and data.train[0]["image"].dtype == np.uint8
    np.testing.assert_allclose(all_greys(data), [0, 1, 2, 3, 4, 5, 100, 100, 150, 255], atol=2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 3 and "corrupt.png" in lines[0] and "empty.jpg" in lines[1]
    assert lines[2] == f"2 of 12 images of {root} skipped"
    (manifest,) = manifests(root)
    assert [f"skipped: {line}" for line in manifest["skipped"]] == lines[:2]


def test_large_folders_are_streamed_and_skip_corrupt_files(root, monkeypatch, capsys):
    monkeypatch.setattr(image_folder, "_FEW", 5)
    (root / "part_1" / "0004.png").write_bytes(b"broken")
    assert all_greys(load(root)) == [i for i in range(30) if i != 4]
    assert "tensorflow" not in sys.modules
    line = "cannot read image part_1/0004.png: not an image of a known format"
    err = capsys.readouterr().err
    assert f"skipped: {line}\n" in err and f"1 of 30 images of {root} skipped" in err
    assert [manifest["skipped"] for manifest in manifests(root)] == [[line]]


@pytest.mark.parametrize("few", [200, 1])
def test_only_corrupt_files_is_one_error_and_no_data_set(root, monkeypatch, few):
    monkeypatch.setattr(image_folder, "_FEW", few)
    for path in root.rglob("*.png"):
        path.write_bytes(b"broken")
    message = "0 readable images in .*needs at least 3" if few == 200 else "none of the .* train"
    with pytest.raises(InputError, match=message):
        load(root)
    assert not manifests(root)


@pytest.fixture
def made(monkeypatch):
    """The names of the images that were read since the last call."""
    names, read = [], layouts.read_image

    def noting(*arguments):
        names.append(arguments[-1].file)
        return read(*arguments)

    def take():
        found = sorted(set(names))
        names.clear()
        return found

    monkeypatch.setattr(layouts, "read_image", noting)
    return take


def test_prepared_data_is_kept_until_the_folder_changes(root, made):
    first = load(root)
    assert len(made()) == 30
    assert greys(load(root)) == greys(first) and not made()
    load(root, image_size=16)
    assert len(made()) == 30
    (root / "part_0" / "notes.txt").write_text("this changes the directory, not the images")
    load(root)
    assert not made()
    os.utime(root / "part_0" / "0000.png", ns=(0, 0))
    load(root)
    assert len(made()) == 30
    assert len(all_greys(load(fill(root, 1, start=30)))) == 31


def test_a_folder_may_hold_its_attributes_but_those_of_the_flag_come_first(root, made, tmp_path):
    assert load(root).factors == {}
    rows = [f"part_{i % 3}/{i:04d}.png,{'ab'[i % 2]},unknown" for i in range(30)]
    (table := root / "attributes.csv").write_text("\n".join(["file,parity,hat", *rows]))
    made()
    for read in (30, 0):
        data = load(root)
        assert data.factors == {"parity": ("a", "b"), "hat": ("unknown",)}
        assert len(made()) == read
    for example in itertools.chain(*(examples(getattr(data, split)) for split in SPLITS)):
        assert example["parity"] == example["image"][0, 0, 0] % 2 and example["hat"] == 0
    table.write_text("\n".join(["file,odd,hat", *rows, "gone.png,a,yes"]))
    assert load(root).factors == {"odd": ("a", "b"), "hat": ("unknown",)}
    (other := tmp_path / "other.csv").write_text("\n".join(["file,number,hat", *rows]))
    for options, name in (({}, "odd"), ({"attributes": other}, "number")):
        output = tmp_path / name
        manifest = prepare_dataset("image_folder", root, 8, output=output, **options)
        assert [*manifest["factors"]] == [name, "hat"]
    with pytest.raises(InputError, match=r"1 of the 31 images in .* are not in .*attributes.csv"):
        load(fill(root, 1, start=30))
    table.rename(root / "part_0" / "attributes.csv")
    assert load(root).factors == {}


def test_a_stop_is_continued_but_what_has_changed_since_is_made_again(root, monkeypatch, made):
    monkeypatch.setattr(builder, "_SHARD_IMAGES", 4)
    monkeypatch.setattr(image_folder, "_FEW", 1)
    splits, noting = image_folder.list_folder(root).splits, layouts.read_image
    last = splits["test"][-1].file

    def stopped(*arguments):
        if arguments[-1].file == last:
            raise KeyboardInterrupt
        return noting(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", stopped)
        with pytest.raises(KeyboardInterrupt):
            load(root)
    assert len(made()) > 20
    changed = splits["train"][0].file
    Image.new("RGB", (9, 9), "white").save(root / changed)
    data = load(root)
    # Of the others, nothing is read twice but the rest of two shards.
    again = made()
    assert {changed, last} <= {*again} and len(again) <= 8
    assert greys(data)["train"][0] == 255 and len(all_greys(data)) == 30
    assert not list((root.parent / "data").rglob("*incomplete*"))


@pytest.mark.parametrize("few, grown", [(200, "an image"), (1, "a new one")])
def test_a_folder_that_is_still_being_copied_is_refused(root, monkeypatch, few, grown):
    monkeypatch.setattr(image_folder, "_FEW", few)
    read_image, read = layouts.read_image, []
    last = root / "part_2" / "0029.png"
    whole = last.read_bytes()
    if grown == "an image":
        last.write_bytes(whole[:30])

    def copying(*arguments):
        if len(read) == 29:
            (root / "0030.png" if grown == "a new one" else last).write_bytes(whole)
        read.append(arguments[-1].file)
        return read_image(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "read_image", copying)
        with pytest.raises(InputError, match="faces changed while it was read: run the command"):
            load(root)
    assert not list((root.parent / "data").glob("*/*/prepared.json"))
    assert len(all_greys(load(root))) == 30 + (grown == "a new one")
