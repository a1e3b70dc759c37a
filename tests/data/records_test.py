"""Records, and data sets in buckets."""

import errno
import shutil

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.data import load_dataset, prepare, records
from pivq_jax.data.images import damage_as_input_error
from pivq_jax.data.pipeline import train_batches
from tests.data.conftest import prepare_arguments


@pytest.fixture(scope="module")
def prepared(sources, tmp_path_factory):
    """FFHQ at 32 pixels, of which tests change copies."""
    output = tmp_path_factory.mktemp("prepared")
    assert prepare.main(prepare_arguments("ffhq", sources["ffhq"], output)) == 0
    return output


@settings(max_examples=30)
@given(
    st.binary(min_size=1),
    st.dictionaries(st.text(min_size=1).filter(lambda n: n != "image"), st.integers(0, 2**31)),
)
def test_records_round_trip_in_one_spelling(png, factors):
    record = records.encode(png, factors)
    features = records.features_of(record)
    assert features["image"].bytes_list.value[:] == [png]
    read = {name: list(each.int64_list.value) for name, each in features.items() if name != "image"}
    assert read == {name: [value] for name, value in factors.items()}
    assert records.encode(png, dict(reversed(factors.items()))) == record


def test_a_data_set_in_a_bucket_is_copied_once(prepared, make_source, tmp_path, monkeypatch):
    bucket, cache = tmp_path / "bucket", tmp_path / "cache"
    shutil.copytree(prepared, bucket)
    real, opened = epath.Path, []

    def path(name):
        opened.append(name)
        return real(str(name).replace("gs://bucket", str(bucket)))

    monkeypatch.setattr(epath, "Path", path)
    monkeypatch.setitem(files._REMOTE, "gs", "fsspec")  # instead of gcsfs
    first = load_dataset("ffhq", image_size=16, path="gs://bucket", data_dir=cache)
    assert "gs://bucket" in opened and len(first.train) == 30
    assert first.train[0]["image"].shape == (16, 16, 3)
    (local,) = cache.glob("fetched/*/ffhq/32px")
    changed = {file.name: file.stat().st_mtime_ns for file in local.iterdir()}
    assert changed.keys() == {file.name for file in (bucket / "ffhq" / "32px").iterdir()}
    load_dataset("ffhq", image_size=32, path="gs://bucket", data_dir=cache)
    assert {file.name: file.stat().st_mtime_ns for file in local.iterdir()} == changed
    with pytest.raises(InputError, match="not prepared at 64 pixels in gs://bucket"):
        load_dataset("ffhq", image_size=64, path="gs://bucket", data_dir=cache)

    # Other data in the same place is another copy; the earlier one may be in use.
    shutil.rmtree(bucket)
    few = make_source("ffhq", 12)
    assert prepare.main(prepare_arguments("ffhq", few, bucket)) == 0
    other = load_dataset("ffhq", image_size=32, path="gs://bucket", data_dir=cache)
    assert other.identity != first.identity
    assert len(list(cache.glob("fetched/*/ffhq/32px"))) == 2


def test_a_bucket_that_changes_while_it_is_copied_is_refused(tmp_path, monkeypatch):
    bucket = tmp_path / "bucket" / "ffhq" / "32px"
    bucket.mkdir(parents=True)
    for name in (records.MANIFEST, "shard"):
        (bucket / name).write_text("first")
    copy = records._copy

    def changing(folder, file):
        copy(folder, file)
        (bucket / "shard").write_text("the second")

    monkeypatch.setattr(records, "as_path", epath.Path)
    monkeypatch.setattr(records, "_copy", changing)
    with pytest.raises(InputError, match="32px changed while it was copied"):
        records.fetch(str(tmp_path / "bucket"), "ffhq", 32, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/fetched/*/ffhq/32px"))


def test_a_damaged_data_set_is_named(prepared, tmp_path):
    shutil.copytree(prepared / "ffhq", tmp_path / "ffhq")
    (shard,) = (tmp_path / "ffhq" / "32px").glob("ffhq-train.array_record*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"prepared data in {shard.parent} is damaged") as refusal:
        load_dataset("ffhq", image_size=32, path=tmp_path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(OSError, match="Input/output"), damage_as_input_error("damage"):
        raise OSError(errno.EIO, "Input/output error")  # the disk's, which says nothing of the data
    for content in ("{", "{}", "[]", "[" * 100_000):
        (shard.parent / "prepared.json").write_text(content)
        with pytest.raises(InputError, match=r"prepared\.json.*delete that directory"):
            load_dataset("ffhq", image_size=32, path=tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_is_damage_where_records_are_read(prepared, tmp_path, workers):
    shutil.copytree(prepared / "ffhq", tmp_path / "ffhq")
    (shard,) = (tmp_path / "ffhq" / "32px").glob("ffhq-train.array_record*")
    content = bytearray(shard.read_bytes())
    used = [place for place in range(2**16) if content[place]]  # then come padding and the index
    content[used[len(used) // 2]] ^= 1
    shard.write_bytes(content)
    source = load_dataset("ffhq", image_size=32, path=tmp_path).train
    message = (
        rf"^the prepared data in {shard.parent} is damaged \(.*\): delete that directory"
        " and run the command again$"
    )
    with pytest.raises(InputError, match=message) as refusal:
        for index in range(len(source)):
            source[index]
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match=message):
        for _ in train_batches(source, batch_size=len(source), seed=0, workers=workers):
            pass
