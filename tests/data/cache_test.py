"""The command that shows and deletes prepared data."""

import shutil

import pytest

from pivq_jax.data import cache, load_dataset, toon_faces


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A cache with a complete data set, an unfinished one and a copy of one in a bucket."""
    monkeypatch.setattr(toon_faces, "SPLIT_SIZES", dict.fromkeys(toon_faces.SPLIT_SIZES, 8))
    load_dataset("toon_faces", image_size=16, data_dir=tmp_path)
    (done,) = tmp_path.glob("toon_faces/16px*")
    unfinished = tmp_path / "image_folder" / ".faces_64px_0.incomplete" / "data"
    unfinished.mkdir(parents=True)
    (unfinished / "shard").write_bytes(bytes(3 * 2**20))
    copy = tmp_path / "fetched" / "0123" / "ffhq" / "32px"
    copy.mkdir(parents=True)
    for file in done.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return tmp_path


NAMES = {
    "toon_faces/16px-1.0.0": "24 images",
    "image_folder/.faces_64px_0.incomplete": "unfinished",
    "fetched/0123/ffhq/32px": "24 images",
}


def test_everything_is_listed_with_its_size(prepared, capsys):
    assert cache.main([f"--directory={prepared}"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES)
    for name, what in NAMES.items():
        (line,) = [line for line in lines if line.endswith(f"  {name}")]
        assert what in line
    assert "3 MiB" in next(line for line in lines if "unfinished" in line)
    assert total.endswith(f"in 3 data sets in {prepared}")


def test_what_is_named_is_deleted(prepared, capsys):
    first, second, third = NAMES
    assert cache.main([f"--directory={prepared}", "--delete", second, third]) == 0
    assert capsys.readouterr().out.startswith("3 MiB freed")
    assert [entry.name for entry in cache.contents(prepared)] == [first]
    assert cache.main([f"--directory={prepared}", "--delete", first, third]) == 2
    assert f"error: --delete={third}: there is no such data set" in capsys.readouterr().err
    assert [entry.name for entry in cache.contents(prepared)] == [first]


def test_an_interrupted_deletion_is_listed_and_does_not_hinder_the_next(
    prepared, capsys, monkeypatch
):
    first, second, third = NAMES
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path: (path / "prepared.json").unlink())
        cache.delete(prepared, [third])
    (left,) = {entry.name for entry in cache.contents(prepared)} - {first, second}
    assert left.startswith("fetched/0123/ffhq/.32px.") and left.endswith(".deleted")
    shutil.copytree(prepared / first, prepared / third)  # it is made again
    assert cache.main([f"--directory={prepared}", "--delete", third, left, third]) == 0
    assert " MiB freed in " in capsys.readouterr().out
    assert {entry.name for entry in cache.contents(prepared)} == {first, second}
    assert not list((prepared / "fetched/0123/ffhq").iterdir())


def test_an_empty_cache_is_no_error(tmp_path, capsys):
    assert cache.main([f"--directory={tmp_path / 'nowhere'}"]) == 0
    assert capsys.readouterr().out.startswith("0 MiB in 0 data sets")
