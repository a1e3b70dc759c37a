"""Listings of directory trees, and the record that saves listing them again."""

import collections
import json
import os
import time

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import images, tree
from pivq_jax.data.tree import fingerprint, list_images


def test_a_tree_is_listed_in_the_order_of_relative_paths(tmp_path):
    for name in ("b/2.PNG", "b/10.jpeg", "a.bmp", "b/._2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "directory.png").mkdir()
    listed = list_images(tmp_path)
    assert listed == ["a.bmp", "b/10.jpeg", "b/2.PNG"]


def test_what_is_no_file_is_left_out(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "link.png").symlink_to("a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "to_pipe.png").symlink_to("pipe.png")
    assert list_images(tmp_path) == ["a.png", "link.png"]


def test_no_images_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"no directory .*nowhere: give the path"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no image in .*\.jpg"):
        list_images(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: give the path of a directory"):
        list_images(tmp_path / "file")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three directories of files, whose times are believed at once."""
    monkeypatch.setattr(tree, "_RECENT_NS", 0)
    for name in ("a/1.png", "a/2.jpg", "b/c/3.png", "b/notes.txt"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "root"


def later():
    """Waits until the clock of the file system has moved on."""
    time.sleep(0.02)


@pytest.fixture
def listed(monkeypatch):
    """The directories that were listed since the last call."""
    names = []
    real = tree._list

    def counting(root, name, stamp):
        names.append(name)
        return real(root, name, stamp)

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

    later()
    (root / "b/more.txt").touch()
    assert fingerprint(root, record) == first and listed() == ["b"]

    later()
    (root / "b/c/4.png").touch()
    other = fingerprint(root, record)
    assert other[1] == 4 and other != first and listed() == ["b/c"]
    later()
    (root / "b/c/4.png").unlink()
    assert fingerprint(root, record) == first
    later()
    (root / "b/c/d").mkdir()
    (root / "b/c/d/5.png").touch()
    assert fingerprint(root, record)[1] == 4
    assert fingerprint(root, record) == fingerprint(root, tmp_path / "another record.json")


def test_a_time_of_modification_that_was_set_back_hides_nothing(root, tmp_path):
    """As by unpacking an archive whose times were normalised."""
    record = tmp_path / "record.json"
    fingerprint(root, record)
    before = os.stat(root / "a")
    later()
    (root / "a/3.png").touch()
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(root, record)[1] == 4


def test_overwritten_files_are_noticed_without_a_change_of_their_directory(root, tmp_path, listed):
    record = tmp_path / "record.json"
    first = fingerprint(root, record)
    (root / "a/2.jpg").write_text("other content")
    second = fingerprint(root, record)
    assert second != first and second[1] == 3
    listed()
    assert fingerprint(root, record) == second and listed() == []


def test_a_directory_that_just_changed_is_listed_again(tmp_path, listed):
    (tmp_path / "root").mkdir()
    for count in range(3):
        assert fingerprint(tmp_path / "root", tmp_path / "record.json")[1] == count
        (tmp_path / "root" / f"{count}.png").touch()
    assert listed() == ["", "", ""]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"directories": {"": [1]}, "sample": {}}'])
def test_a_damaged_record_is_made_again(root, tmp_path, content):
    record = tmp_path / "record.json"
    first = fingerprint(root, record)
    record.write_text(content)
    assert fingerprint(root, record) == first
    assert record.stat().st_size > 100


def test_a_record_that_cannot_be_written_is_no_error(root, tmp_path, monkeypatch):
    def refuse(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tree, "write_atomically", refuse)
    first = fingerprint(root, tmp_path / "record.json")
    assert fingerprint(root, tmp_path / "record.json") == first


def test_another_reader_finds_its_images_in_unchanged_directories(root, tmp_path, monkeypatch):
    later()
    (root / "a/3.heic").touch()
    record = tmp_path / "record.json"
    with monkeypatch.context() as patch:
        for module in (tree, images):
            patch.setattr(module, "EXTENSIONS", images.EXTENSIONS - {".heic"})
        assert fingerprint(root, record)[1] == 3
    for module in (tree, images):
        monkeypatch.setattr(module, "EXTENSIONS", images.EXTENSIONS | {".heic"})
    assert fingerprint(root, record)[1] == 4


def test_the_record_of_many_files_is_small_and_spread_over_them(tmp_path, monkeypatch, listed):
    monkeypatch.setattr(tree, "_RECENT_NS", 0)
    monkeypatch.setattr(tree, "_SAMPLED", 100)
    for index in range(2000):
        path = tmp_path / "root" / str(index // 200) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    record = tmp_path / "record.json"
    first = fingerprint(tmp_path / "root", record)
    sample = json.loads(record.read_text())["sample"]
    counts = collections.Counter(file.split("/")[0] for file in sample)
    assert 50 <= len(sample) <= 100 and len(counts) == 10 and max(counts.values()) <= 25
    later()
    os.remove(tmp_path / "root" / "3" / "603.png")
    second = fingerprint(tmp_path / "root", record)
    assert second[1] == 1999 and second != first
    listed()
    assert fingerprint(tmp_path / "root", record) == second and listed() == []


def test_what_could_not_be_looked_at_is_looked_at_again(root, tmp_path, monkeypatch, caplog):
    real, record = os.scandir, tmp_path / "record.json"

    def scandir(path):
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert list_images(root) == ["a/1.png", "a/2.jpg"]
        assert fingerprint(root, record)[1] == 2
    warning = f"{root}/b is left out: Permission denied"
    assert [r.getMessage() for r in caplog.records] == [warning, warning]
    assert fingerprint(root, record)[1] == 3


def test_links_to_nothing_and_to_themselves_are_ignored_until_they_lead_somewhere(root, tmp_path):
    (root / "loop").symlink_to(root / "loop")
    (root / "a/share.png").symlink_to(tmp_path / "share.png")
    record = tmp_path / "record.json"
    assert fingerprint(root, record)[1] == 3
    (tmp_path / "share.png").touch()
    assert fingerprint(root, record)[1] == 4 and "a/share.png" in list_images(root)
