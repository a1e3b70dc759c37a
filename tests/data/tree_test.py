"""Listings of directory trees, and the record that saves listing them again."""

import os
import time

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import tree
from pivq_jax.data.tree import fingerprint, list_images


def test_a_tree_is_listed_in_the_order_of_relative_paths(tmp_path):
    for name in ("b/2.PNG", "b/10.jpeg", "a.bmp", "b/._2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "directory.png").mkdir()
    listed = list_images(tmp_path)
    assert listed == ["a.bmp", "b/10.jpeg", "b/2.PNG"]


def test_no_images_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"no directory .*nowhere: give the path"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no image in .*\.jpg"):
        list_images(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: give the path of a directory"):
        list_images(tmp_path / "file")


@pytest.fixture
def root(tmp_path):
    """Three directories of files, modified long ago."""
    for name in ("a/1.png", "a/2.jpg", "b/c/3.png", "b/notes.txt"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    age(tmp_path / "root")
    return tmp_path / "root"


def age(root):
    """Makes all directories look old: recently changed ones are listed again anyway."""
    for directory, _, _ in os.walk(root):
        os.utime(directory, ns=(0, os.stat(directory).st_mtime_ns - 10**12))


@pytest.fixture
def listed(monkeypatch):
    """The directories that were listed since the last call."""
    names = []
    real = tree._list

    def counting(root, name, changed):
        names.append(name)
        return real(root, name, changed)

    monkeypatch.setattr(tree, "_list", counting)

    def take():
        found = sorted(names)
        names.clear()
        return found

    return take


def test_only_changed_directories_are_listed_again(root, tmp_path, listed):
    record = tmp_path / "record.json"
    first = fingerprint(root, record)
    assert first[1] == 3 and listed() == ["", "a", "b", "b/c"]
    assert fingerprint(root, record) == first and listed() == []

    (root / "b/more.txt").touch()
    assert fingerprint(root, record) == first and listed() == ["b"]
    age(root)
    fingerprint(root, record), listed()

    (root / "b/c/4.png").touch()
    other = fingerprint(root, record)
    assert other[1] == 4 and other != first and listed() == ["b/c"]
    (root / "b/c/4.png").unlink()
    assert fingerprint(root, record) == first
    (root / "b/c/d").mkdir()
    (root / "b/c/d/5.png").touch()
    assert fingerprint(root, record)[1] == 4
    assert fingerprint(root, record) == fingerprint(root, tmp_path / "another record.json")


def test_overwritten_files_are_noticed_without_a_change_of_their_directory(root, tmp_path, listed):
    record = tmp_path / "record.json"
    first = fingerprint(root, record)
    age(root)
    (root / "a/2.jpg").write_text("other content")
    second = fingerprint(root, record)
    assert second != first and second[1] == 3
    listed()
    assert fingerprint(root, record) == second and listed() == []


def test_a_directory_that_just_changed_is_listed_again(tmp_path, listed):
    (tmp_path / "root").mkdir()
    record = tmp_path / "record.json"
    for count in range(3):
        assert fingerprint(tmp_path / "root", record)[1] == count
        os.utime(tmp_path / "root", ns=(0, time.time_ns()))
        before = os.stat(tmp_path / "root").st_mtime_ns
        (tmp_path / "root" / f"{count}.png").touch()
        os.utime(tmp_path / "root", ns=(0, before))  # a coarse clock


@pytest.mark.parametrize("content", ["", "[]", "{", '{"directories": {"": [1]}, "sample": {}}'])
def test_a_damaged_record_is_made_again(root, tmp_path, content):
    record = tmp_path / "record.json"
    first = fingerprint(root, record)
    record.write_text(content)
    assert fingerprint(root, record) == first
    assert record.stat().st_size > 100


def test_the_record_of_many_files_is_small(tmp_path, monkeypatch, listed):
    monkeypatch.setattr(tree, "_SAMPLED", 10)
    for index in range(200):
        path = tmp_path / "root" / str(index % 7) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    record = tmp_path / "record.json"
    first = fingerprint(tmp_path / "root", record)
    assert record.read_text().count(".png") <= 10
    os.remove(tmp_path / "root" / "3" / "3.png")
    age(tmp_path / "root")
    second = fingerprint(tmp_path / "root", record)
    assert second[1] == 199 and second != first
    listed()
    assert fingerprint(tmp_path / "root", record) == second and listed() == []


def test_directories_without_permission_are_left_out_with_a_warning(root, monkeypatch, caplog):
    real = os.scandir

    def scandir(path):
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list_images(root) == ["a/1.png", "a/2.jpg"]
    assert [r.getMessage() for r in caplog.records] == [f"{root}/b is left out: Permission denied"]
