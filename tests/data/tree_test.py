"""Listings of directory trees."""

import errno
import os

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.tree import fingerprint, list_files, list_images, without_links


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_image_files_that_are_not_hidden_are_listed_in_the_order_of_relative_paths(tmp_path):
    root = touch(tmp_path / ".photos", "b/2.PNG", "b/10.jpeg", "a.bmp", "notes.txt")
    touch(root, "b/._2.png", ".thumbnails/a.png", "b/.Trash-1000/files/c.png", "@eaDir/a.png")
    (root / "directory.png").mkdir()
    os.mkfifo(root / "pipe.png")
    (root / "to_pipe.png").symlink_to("pipe.png")
    assert list_images(root) == ["a.bmp", "b/10.jpeg", "b/2.PNG"]


def test_a_link_to_an_image_that_is_listed_is_no_other_image(tmp_path):
    """A copy in another split would be a test image that was trained on."""
    root = touch(tmp_path / "root", "a.png", "b/c.png", ".git/annex/1.png", "best/e.png")
    touch(tmp_path, "elsewhere.png", "others/1.png")
    (root / "best/e.png").unlink()
    links = {"best/a.png": "../a.png", "b/1.png": "../.git/annex/1.png"}
    links |= {"b/e.png": "../../elsewhere.png", "best/e.png": "../../elsewhere.png"}
    links |= {"c": "../others", "x.png": "../others/1.png"}  # a folder, and an image in it
    links |= {"b/loop": "..", "again": "b"}  # which add nothing and rename nothing
    for name, target in links.items():
        (root / name).symlink_to(target)
    listed = list_images(root)
    assert {*listed} == {"a.png", "b/c.png", "c/1.png", *links} - {"c", "b/loop", "again"}
    kept = without_links(root, dict.fromkeys(listed, ""))
    assert [*kept] == ["a.png", "b/1.png", "b/c.png", "b/e.png", "c/1.png"]


def test_no_images_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "nowhere", "no directory .*nowhere: give the path"),
        (tmp_path, r"no image in .*\.jpg"),
        (tmp_path / "file", "is a file: give the path of a directory"),
    ):
        with pytest.raises(InputError, match=message):
            list_images(path)


@pytest.fixture
def root(tmp_path):
    """Three directories of files."""
    return touch(tmp_path / "root", "a/1.png", "a/2.jpg", "b/c/3.png", "b/notes.txt")


def test_images_that_come_go_move_or_change_give_another_fingerprint(root, tmp_path, monkeypatch):
    first = fingerprint(list_files(root))
    (root / "b/more.txt").touch()
    (root / "loop").symlink_to(root / "loop")
    (root / "a/share.png").symlink_to(tmp_path / "share.png")  # which is not there yet
    assert fingerprint(list_files(root)) == first
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: not str(path).endswith("1.png"))
        assert fingerprint(list_files(root)) != first  # what may not be read is skipped
    (tmp_path / "share.png").touch()
    assert fingerprint(list_files(root)) != first and "a/share.png" in list_images(root)
    (tmp_path / "share.png").unlink()
    (root / "a/1.png").rename(root / "b/1.png")
    assert fingerprint(list_files(root)) != first
    (root / "b/1.png").rename(root / "a/1.png")
    assert fingerprint(list_files(root)) == first
    (root / "a/2.jpg").write_text("other content")  # does not change its directory
    assert fingerprint(list_files(root)) != first


@pytest.mark.parametrize("function", ["stat", "scandir"])
def test_storage_that_fails_is_an_error_and_what_is_forbidden_a_warning(
    root, monkeypatch, caplog, function
):
    real, number = getattr(os, function), errno.EIO
    failing = f"{root}/a/1.png" if function == "stat" else f"{root}/a"

    def fail(path, *arguments, **options):
        if str(path) == failing:
            raise OSError(number, os.strerror(number), path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="Input/output error"):
        list_images(root)
    number = errno.EACCES
    assert "a/1.png" not in list_images(root) and "b/c/3.png" in list_images(root)
    assert f"{failing} is left out: Permission denied" in caplog.text
