"""Files that survive a power cut: what is written is synced before it is relied on."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import (
    MAX_NAME_BYTES,
    as_path,
    cache_folder,
    check_directory,
    check_lengths,
    check_new_folder,
    expanded,
    local_path,
    new_folder,
    read_object,
    replace_together,
    sync_tree,
    write_atomically,
    write_json,
)
from pivq_jax.training.checkpoints import Checkpoints
from tests.conftest import full_disk


@pytest.fixture
def synced(monkeypatch) -> list[tuple[str, list[str]]]:
    """Each path that is synced, by name, and the names beside it at that moment."""
    calls = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        folder = path if path.is_dir() else path.parent
        calls.append((str(path), sorted(each.name for each in folder.iterdir())))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def test_content_is_synced_before_the_rename_and_the_name_after_it(tmp_path, synced):
    path = tmp_path / "config.json"
    path.write_text("old")
    write_atomically(path, b"new")
    (content, beside), (folder, names) = synced
    assert content.endswith(".tmp") and "config.json" in beside and len(beside) == 2
    assert folder == str(tmp_path) and names == ["config.json"]
    assert path.read_text() == "new"


def test_a_tree_is_synced_with_the_names_in_each_directory(tmp_path, synced):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("c")
    sync_tree(tmp_path / "a")
    paths = {path for path, _ in synced}
    assert paths == {str(tmp_path / name) for name in ("a/b/c", "a/b", "a", "")}


def test_a_checkpoint_is_synced_before_the_one_before_it_is_deleted(tmp_path, synced):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": np.arange(4)}, {})
            done = {int(n) for path, _ in synced for n in Path(path).parts if n.isdigit()}
            assert set(range(1, step)) <= done
            # Of the two before a new one, the later is on the disk.
            assert step < 3 or {2} <= set(checkpoints.steps())


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_object_is_an_empty_one(tmp_path, content):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_bytes(content)
    assert read_object(path) == {}
    write_json(path, {"step": 3})
    assert read_object(path) == {"step": 3}


def test_a_place_for_output_is_a_directory_or_can_become_one(tmp_path, monkeypatch):
    check_directory(tmp_path / "new" / "below", "--to")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place, message in (
        (tmp_path / "file" / "below", "file is a file: choose another --to"),
        (tmp_path / "link", "link is a link to what does not exist: choose another --to"),
    ):
        with pytest.raises(InputError, match=message):
            check_directory(place, "--to")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write to all
    with pytest.raises(InputError, match=" cannot be written: choose another --to"):
        check_directory(tmp_path / "new", "--to")
    check_directory(tmp_path / "new", "--to", writes=False)


def test_names_as_long_as_a_file_system_allows_are_written(tmp_path):
    name = "ü" * 127 + "a"
    write_atomically(tmp_path / name, b"file")
    with new_folder(tmp_path / f"{name[:-1]}b"):
        pass
    assert sorted(os.listdir(tmp_path)) == [name, f"{name[:-1]}b"]
    check_lengths([f"below/{name}"], "shorten it")
    with pytest.raises(InputError, match=rf"'üü.*would take 256 bytes.* {MAX_NAME_BYTES}.*shorten"):
        check_lengths(["short", f"below/{name}a"], "shorten it")


def test_a_new_folder_appears_once_it_is_whole_and_is_not_replaced(tmp_path):
    target = tmp_path / "deep" / "out"
    check_new_folder(target, "--to")
    assert not target.parent.exists()
    with new_folder(target) as folder:
        (folder / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content" and os.listdir(target.parent) == ["out"]
    with pytest.raises(InputError, match="out exists: give a new folder, as nothing is replaced"):
        new_folder(target).__enter__()
    assert os.listdir(target) == ["file"]


@pytest.mark.parametrize("exists", [False, True])
def test_an_error_leaves_nothing_and_names_the_folder(tmp_path, exists):
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    with pytest.raises(OSError, match="No space left") as failed, new_folder(target) as folder:
        (folder / "file").touch()
        full_disk()
    assert failed.value.filename == str(target)
    assert list(tmp_path.rglob("*")) == [target] * exists


def test_an_empty_folder_stays_the_same_one(tmp_path, monkeypatch):
    """As a mounted volume and the current directory must, and a private folder should."""
    target = tmp_path / "out"
    target.mkdir(mode=0o700)
    before = target.stat()
    monkeypatch.chdir(target)
    with new_folder(Path(".")) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "file").touch()
    after = target.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(".") == ["below"] and os.listdir("below") == ["file"]


KILLED = """
import sys, time
from pathlib import Path
from pivq_jax.common.files import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "partial").touch()
    print("writes", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path, exists):
    target, other = tmp_path / "out", tmp_path / ".other.1.tmp"
    other.mkdir()
    if exists:
        target.mkdir()
    command = [sys.executable, "-c", KILLED, str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "writes\n"
    (place,) = [path.parent for path in tmp_path.rglob("partial")]
    for start in (lambda: check_new_folder(target, "--to"), new_folder(target).__enter__):
        with pytest.raises(InputError, match=r"another process is filling .*out: give"):
            start()
    assert place.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_new_folder(target, "--to")
    with new_folder(target) as folder:
        (folder / "whole").touch()
    assert os.listdir(target) == ["whole"] and set(tmp_path.iterdir()) == {target, other}


def test_a_temporary_file_of_a_killed_process_is_deleted_an_hour_later(tmp_path):
    """Until then another process may be writing it; other files stay."""
    target, young, other = (tmp_path / n for n in ("a.json", f".b.{'0' * 32}.tmp", ".c.tmp"))
    left = []

    def content():
        left.extend(tmp_path.iterdir())
        yield b"content"

    write_atomically(target, content())
    for path in (*left, young, other):
        path.touch()
    for path in (*left, other):
        os.utime(path, (time.time() - 3_700,) * 2)
    files._delete_abandoned.cache_clear()
    write_atomically(target, b"whole")
    assert len(left) == 1 and {*tmp_path.iterdir()} == {target, young, other}


def test_without_a_home_directory_caches_are_temporary_and_paths_in_it_refused(
    monkeypatch, tmp_path, capsys
):
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"pivq_jax-{os.getuid()}"
    assert [cache_folder(name) for name in "ab"] == [folder / "a", folder / "b"]
    assert folder.stat().st_mode & 0o777 == 0o700
    said = capsys.readouterr().err
    assert said.count("there is no home directory: caches are in ") == 1 and str(folder) in said
    # One that somebody else has put there is not used.
    folder.rmdir()
    folder.write_text("taken")
    files._temporary_cache.cache_clear()
    assert cache_folder("a").parent.is_dir()
    monkeypatch.setenv("PIVQ_DATA_DIR", "~/data")
    for path in (as_path, local_path, lambda name: cache_folder("a", "PIVQ_DATA_DIR")):
        with pytest.raises(InputError, match=r"^~.*: there is no such home directory: set HOME"):
            path("~/run")
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/run") == Path("/home/me/run")


@pytest.mark.parametrize("remote", [False, True])
def test_other_images_of_a_folder_are_found_wherever_it_is(bucket, tmp_path, remote):
    folder = bucket if remote else tmp_path
    for name in ("a.png", "deep/er/b.png", "codes.json"):
        files.write_atomically(folder / name, b"")
    files.check_no_others(folder, {"a.png", "deep/er/b.png"})
    with pytest.raises(InputError, match=r"holds another image, deep/er/b\.png: delete"):
        files.check_no_others(folder, {"a.png", "b.png"})


def test_rows_of_json_are_read_as_they_were(tmp_path):
    rows = {"a.png": np.uint16([1, 65_535]), 'b "ä"\n.png': np.uint16([0, 2])}
    files.write_atomically(tmp_path / "codes.json", files.json_rows(rows))
    found = files.read_json(tmp_path / "codes.json")
    assert found == {name: row.tolist() for name, row in rows.items()}


KILLED_TOGETHER = """
import os, signal, sys
from pathlib import Path
from pivq_jax.common import files

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.replace_together(Path(sys.argv[1]), {"a": b"half", "b": b"half"})
"""


def test_what_a_killed_process_left_is_deleted_by_the_next_one(tmp_path):
    """But not what another one is writing at this moment."""
    killed = subprocess.run([sys.executable, "-c", KILLED_TOGETHER, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    with files._new_locked(tmp_path) as held:
        replace_together(tmp_path, {"a": b"whole", "b": None})
        assert {*tmp_path.iterdir()} == {held, tmp_path / "a"}
    assert (tmp_path / "a").read_bytes() == b"whole"
