"""Records, and data sets in buckets."""

import shutil

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.data import load_dataset, prepare, records
from pivq_jax.data.pipeline import train_batches
from tests.data.conftest import examples, prepare_arguments


@pytest.fixture(scope="module")
def ffhq(sources, tmp_path_factory):
    """FFHQ at 32 pixels, of which tests change copies."""
    output = tmp_path_factory.mktemp("prepared")
    assert prepare.main(prepare_arguments("ffhq", sources["ffhq"], output)) == 0
    return output


@pytest.fixture
def copy(ffhq, tmp_path):
    return shutil.copytree(ffhq, tmp_path / "bucket")


def load(path, image_size=32, **options):
    return load_dataset("ffhq", image_size=image_size, path=path, **options)


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


def test_a_data_set_in_a_bucket_is_copied_once_and_again_if_it_is_another(
    copy, make_source, tmp_path, monkeypatch
):
    cache, real = tmp_path / "cache", epath.Path
    monkeypatch.setattr(
        epath, "Path", lambda name: real(str(name).replace("gs://bucket", str(copy)))
    )
    monkeypatch.setitem(files._REMOTE, "gs", "fsspec")  # instead of gcsfs
    first = load("gs://bucket", 16, data_dir=cache)
    assert len(first.train) == 30 and first.train[0]["image"].shape == (16, 16, 3)
    (local,) = cache.glob("fetched/*/ffhq/32px")
    changed = {file.name: file.stat().st_mtime_ns for file in local.iterdir()}
    assert changed.keys() == {file.name for file in (copy / "ffhq" / "32px").iterdir()}
    load("gs://bucket", data_dir=cache)
    assert {file.name: file.stat().st_mtime_ns for file in local.iterdir()} == changed
    with pytest.raises(InputError, match="not prepared at 64 pixels in gs://bucket"):
        load("gs://bucket", 64, data_dir=cache)

    # The earlier copy may be in use.
    shutil.rmtree(copy)
    assert prepare.main(prepare_arguments("ffhq", make_source("ffhq", 12), copy)) == 0
    assert load("gs://bucket", data_dir=cache).identity != first.identity
    assert len(list(cache.glob("fetched/*/ffhq/32px"))) == 2


def test_a_bucket_that_changes_while_it_is_copied_is_refused(copy, tmp_path, monkeypatch):
    real = records._copy

    def changing(folder, file):
        real(folder, file)
        (copy / "ffhq/32px/LICENSE").write_text("another")

    monkeypatch.setattr(records, "as_path", epath.Path)
    monkeypatch.setattr(records, "_copy", changing)
    with pytest.raises(InputError, match="32px changed while it was copied"):
        records.fetch(str(copy), "ffhq", 32, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/fetched/*/ffhq/32px"))


def test_a_damaged_data_set_is_named(copy):
    (shard,) = (copy / "ffhq" / "32px").glob("ffhq-train.array_record*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"prepared data in {shard.parent} is damaged") as refusal:
        load(copy)
    assert "\n" not in str(refusal.value)
    for content in ("{", "[]"):
        (shard.parent / "prepared.json").write_text(content)
        with pytest.raises(InputError, match=r"prepared\.json.*delete that directory"):
            load(copy)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_is_damage_where_records_are_read(copy, workers):
    (shard,) = (copy / "ffhq" / "32px").glob("ffhq-train.array_record*")
    content = bytearray(shard.read_bytes())
    used = [place for place in range(2**16) if content[place]]  # then come padding and the index
    content[used[len(used) // 2]] ^= 1
    shard.write_bytes(content)
    source = load(copy).train
    message = rf"^the prepared data in {shard.parent} is damaged \(.*\): delete that directory and"
    with pytest.raises(InputError, match=message):
        examples(source)
    with pytest.raises(InputError, match=message) as refusal:
        for _ in train_batches(source, batch_size=len(source), seed=0, workers=workers):
            pass
    assert "\n" not in str(refusal.value)
