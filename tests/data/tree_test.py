"""Listings of directory trees."""

import errno
import os

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.tree import fingerprint, list_files, list_images, without_links


def test_a_tree_is_listed_in_the_order_of_relative_paths(tmp_path):
    for name in ("b/2.PNG", "b/10.jpeg", "a.bmp", "b/._2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "directory.png").mkdir()
    listed = list_images(tmp_path)
    assert listed == ["a.bmp", "b/10.jpeg", "b/2.PNG"]


def test_hidden_folders_are_left_out(tmp_path):
    root = tmp_path / ".photos"  # which itself may be hidden
    for name in ("a.png", ".thumbnails/a.png", "b/.Trash-1000/files/c.png", "b/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert list_images(root) == ["a.png", "b/c.png"]


def test_a_link_to_an_image_that_is_listed_is_no_other_image(tmp_path):
    """A copy in another split would be a test image that was trained on."""
    root = tmp_path / "root"
    for name in ("a.png", "b/c.png", ".git/annex/1.png", "../elsewhere.png", "@eaDir/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    links = {"best/a.png": "../a.png", "b/1.png": "../.git/annex/1.png"}
    links |= {"b/e.png": "../../elsewhere.png", "best/e.png": "../../elsewhere.png"}
    for name, target in links.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(target)
    assert "best/a.png" in list_images(root)
    found = dict.fromkeys(list_images(root), "")
    assert [*without_links(root, found)] == ["a.png", "b/1.png", "b/c.png", "b/e.png"]
    # Also of a folder that is a link itself.
    (root / "c").symlink_to("../others")
    (root.parent / "others").mkdir()
    (root.parent / "others" / "1.png").touch()
    (root / "x.png").symlink_to("../others/1.png")
    (root / "b" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "b")  # adds nothing and renames nothing
    listed = {*list_images(root)}
    assert listed == {*found, "c/1.png", "x.png"}
    found = without_links(root, dict.fromkeys(list_images(root), ""))
    assert "c/1.png" in found and "x.png" not in found


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
def root(tmp_path):
    """Three directories of files."""
    for name in ("a/1.png", "a/2.jpg", "b/c/3.png", "b/notes.txt"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "root"


def test_images_that_may_not_be_read_give_another_fingerprint(root, monkeypatch):
    first = fingerprint(list_files(root))
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("1.png"))
    assert fingerprint(list_files(root)) != first
    monkeypatch.undo()
    assert fingerprint(list_files(root)) == first


def test_images_that_come_go_move_or_change_give_another_fingerprint(root):
    first = fingerprint(list_files(root))
    assert fingerprint(list_files(root)) == first
    (root / "b/more.txt").touch()
    assert fingerprint(list_files(root)) == first
    (root / "b/c/d").mkdir()
    (root / "b/c/d/5.png").touch()
    assert fingerprint(list_files(root)) != first
    (root / "b/c/d/5.png").unlink()
    assert fingerprint(list_files(root)) == first
    (root / "a/1.png").rename(root / "b/1.png")
    assert fingerprint(list_files(root)) != first
    (root / "b/1.png").rename(root / "a/1.png")
    assert fingerprint(list_files(root)) == first
    (root / "a/2.jpg").write_text("other content")  # does not change its directory
    assert fingerprint(list_files(root)) != first


def test_what_could_not_be_looked_at_is_left_out_with_a_warning(root, monkeypatch, caplog):
    real, first = os.scandir, fingerprint(list_files(root))

    def scandir(path):
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert list_images(root) == ["a/1.png", "a/2.jpg"]
        assert fingerprint(list_files(root)) != first
    warning = f"{root}/b is left out: Permission denied"
    assert [r.getMessage() for r in caplog.records] == [warning, warning]
    assert fingerprint(list_files(root)) == first


@pytest.mark.parametrize("function", ["stat", "scandir"])
def test_storage_that_fails_is_an_error_and_a_forbidden_file_a_warning(
    root, monkeypatch, caplog, function
):
    real, number = getattr(os, function), errno.EIO

    def fail(path, *arguments, **options):
        if str(path).endswith("/a/1.png" if function == "stat" else "/a"):
            raise OSError(number, os.strerror(number), path)
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match="Input/output error"):
            list_images(root)
        number = errno.EACCES
        assert "a/1.png" not in list_images(root)
    assert "is left out: Permission denied" in caplog.text


def test_links_to_nothing_and_to_themselves_are_ignored_until_they_lead_somewhere(root, tmp_path):
    first = fingerprint(list_files(root))
    (root / "loop").symlink_to(root / "loop")
    (root / "a/share.png").symlink_to(tmp_path / "share.png")
    assert fingerprint(list_files(root)) == first
    (tmp_path / "share.png").touch()
    assert fingerprint(list_files(root)) != first and "a/share.png" in list_images(root)
