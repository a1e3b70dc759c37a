"""What the page asks for, against NumPy."""

import copy
import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pivq_jax.common.errors import InputError
from pivq_jax.data import Dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.explore import engine as engine_module
from pivq_jax.explore.engine import BATCH, MAX_EXAMPLES, Engine
from pivq_jax.inference import Decoded
from pivq_jax.sampling import Labels
from tests.explore.engines import untrained_engine

N, K, SIZE = 8, 32, 16  # of the tiny model
PAGE = Path(engine_module.__file__).parent / "page"


def some_sets(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.permutation(K)[:N]) for _ in range(count)]).astype(np.int32)


def test_the_description_has_what_the_interface_says(engine):
    interface, _, backend = (PAGE / "backend.js").read_text().partition("@typedef {object} Backend")
    typedefs = re.findall(r"@typedef \{object\} (\w+)\n(.*?)\*/", interface, re.DOTALL)
    properties = {
        name: set(re.findall(r"@property \{.*?\} (\w+)", body)) for name, body in typedefs
    }
    found = engine.describe()
    assert properties["Model"] == found.keys()
    assert len(found["entries"]) == found["codebookSize"] == K
    assert all(entry.keys() == properties["Entry"] for entry in found["entries"])
    assert found["numCodes"] == N and found["imageSize"] == SIZE
    assert found["examples"] == 128 and found["trainingImages"] == 64
    assert found["opening"] == [0, 1] and found["prior"] is False and found["credit"] == ""
    assert {entry["group"] for entry in found["entries"]} <= {-1, *range(len(found["groups"]))}
    assert found["factors"] == [{"name": "shade", "values": ["dark", "light"], "unseen": []}]
    assert properties["Factor"] == {*found["factors"][0]}
    for kind in (engine_module.Pairs, engine_module.Picture, engine_module.Nearest):
        assert properties[kind.__name__] == {*kind._fields}
    methods = re.findall(r"@property \{.*=> Promise<.*>\} (\w+) -", backend)
    server = (PAGE / "server.js").read_text()
    assert set(methods) == set(re.findall(r"^  async (\w+)\(", server, re.MULTILINE))


def test_images_are_encoded_and_decoded_as_the_model_does(engine):
    model, test = engine.model, engine.dataset.test
    shown = engine.example(5)
    assert shown.name == "test image 5"
    np.testing.assert_array_equal(shown.image, test[5]["image"])
    codes = np.asarray(model.encode(images_to_float(test[5]["image"][None])))
    np.testing.assert_array_equal(shown.codes, codes[0])
    sets = some_sets(0, BATCH)
    one_by_one = np.concatenate([engine.decode(row[None]) for row in sets])
    together = engine.decode(sets)
    assert together.dtype == np.uint8 and together.shape == (len(sets), SIZE, SIZE, 3)
    assert np.abs(together.astype(int) - one_by_one).max() <= 1
    exact = (np.asarray(model.decode(sets)) + 1) * 127.5
    assert np.abs(together - exact).max() < 0.51
    assert len(engine.examples(engine.num_examples - 3, MAX_EXAMPLES)) == 3  # there are no more
    with pytest.raises(InputError, match=str(BATCH)):
        engine.decode(some_sets(0, BATCH + 1))


def test_a_new_face_takes_about_half_of_the_pairs_of_two_training_images(engine):
    pool, train, parents = engine.pool, engine.dataset.train, set()
    for seed in range(5):
        face = engine.recombine(jax.random.key(seed))
        for parent in (face.a, face.b):
            index = int(parent.name.removeprefix("training image "))
            parents.add(index)
            np.testing.assert_array_equal(parent.image, train[index]["image"])
            np.testing.assert_array_equal(parent.codes, pool.codes[index])
        assert face.a.name != face.b.name
        np.testing.assert_array_equal(face.pairs.a, face.a.codes)
        np.testing.assert_array_equal(np.sort(face.pairs.b), face.b.codes)
        differs = face.pairs.a != face.pairs.b
        exchanged = differs & (face.codes == face.pairs.b)
        np.testing.assert_array_equal(face.codes, np.where(exchanged, face.pairs.b, face.pairs.a))
        # Log lifts may change the half by an eighth of the pairs.
        assert abs(exchanged.sum() - round(differs.sum() / 2)) <= round(differs.sum() / 8)
    assert len(parents) > 5


def test_the_nearest_training_image_is_told_with_its_distance(engine):
    codes = some_sets(3, 1)[0]
    found, decoded = engine.nearest(codes), engine.decode(codes[None])[0].astype(np.float64)
    index = int(found.picture.name.removeprefix("training image "))
    train = engine.dataset.train
    distances = [
        np.square(train[i]["image"] - decoded).sum() for i in range(len(train))
    ]  # 16 pixels: nothing is made smaller
    assert index == np.argmin(distances) and found.searched == len(train)
    difference = np.abs(train[index]["image"] - decoded).mean()
    assert found.difference == pytest.approx(difference, rel=1e-5)
    np.testing.assert_array_equal(found.picture.codes, engine.pool.codes[index])


def test_neighbours_are_all_other_entries_by_distance(engine):
    codebook = np.asarray(engine.model.codebook, np.float64)
    for code in (0, 17, K - 1):
        found = engine.neighbours(code)
        assert sorted([code, *found.tolist()]) == list(range(K))
        distances = np.linalg.norm(codebook[found] - codebook[code], axis=-1)
        assert np.all(np.diff(distances) >= -1e-9)


@pytest.fixture(scope="module")
def published(engine):
    """The model as if it were published: with labels of its parents, which are the other ones."""
    labels = Labels(1 - engine.pool.labels, {"shade": ("dark", "light")})
    return dataclasses.replace(engine.model, parents=engine.pool.codes, labels=labels)


def test_factors_are_changed_as_the_model_does(engine, published):
    for codes in (*(engine.example(i).codes for i in range(6)), *some_sets(9, 10)):
        given = np.random.default_rng(0).permutation(codes)
        for value, other in enumerate(("light", "dark")):
            edited = engine.edit(given, 0, value)
            expected = np.asarray(published.edit(codes[None], shade=other))[0]
            np.testing.assert_array_equal(np.sort(edited), expected)


def test_factors_are_those_that_the_image_shows(engine, monkeypatch):
    """Whatever the codes say; noise of a grey level that is neither dark nor light is neither."""
    noise = np.random.default_rng(0).integers(-50, 50, (SIZE, SIZE, 3))
    for level, value in ((64, 0), (128, -1), (192, 1)):
        image = (level + noise).astype(np.uint8)
        monkeypatch.setattr(engine, "decode", lambda sets, image=image: image[None])
        assert engine.read_factors(some_sets(9, 1)[0]).tolist() == [value]


def test_labels_of_a_published_model_come_first_if_they_are_of_the_same_factors(engine, published):
    codes = engine.example(0).codes
    own = Engine(published, engine.dataset)
    assert own.describe()["factors"] == engine.describe()["factors"]
    np.testing.assert_array_equal(own.edit(codes, 0, 0), engine.edit(codes, 0, 1))

    def labelled(values: np.ndarray, *names: str) -> Engine:
        model = dataclasses.replace(published, labels=Labels(values, {"shade": names}))
        return Engine(model, engine.dataset)

    values = published.labels.values
    assert labelled(values, "light", "dark").describe()["factors"] == []
    light = labelled(np.ones_like(values), "dark", "light")
    assert light.describe()["factors"][0]["unseen"] == [0]
    with pytest.raises(InputError, match="no training image shows shade=dark"):
        light.edit(codes, 0, 0)


def test_nothing_compiles_once_it_is_ready(engine):
    compiled = []

    def note(event: str, duration: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        engine.example(7)
        engine.encode(np.full((SIZE, SIZE, 3), 9, np.uint8))
        for count in range(1, BATCH + 1):
            engine.decode(some_sets(4, count))
        engine.pair(*some_sets(5, 2))
        engine.recombine(jax.random.key(123))
        engine.nearest(some_sets(6, 1)[0])
        engine.neighbours(3)
        engine.read_factors(some_sets(6, 1)[0])
        engine.edit(some_sets(6, 1)[0], 0, 1)
        assert not compiled
        jax.jit(lambda x: x * 5 - 3)(np.arange(7))  # the listener does listen
        assert compiled
    finally:
        jax.monitoring.clear_event_listeners()


@settings(max_examples=50)
@example([[True, *range(2, N + 1)]])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(), inner, max_size=2),
    )
    | st.lists(st.lists(st.integers(-1, K), min_size=N - 1, max_size=N + 1), max_size=3)
)
def test_whatever_passes_are_code_sets(engine, value):
    try:
        sets = engine.check(value)
    except InputError:
        return
    assert sets.shape == (len(value), N) and sets.dtype == np.int32
    assert all(type(code) is int for codes in value for code in codes)
    assert all(len({*row}) == N and min(row) >= 0 and max(row) < K for row in sets.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_other_kinds_of_codes_are_exchanged_in_their_own_way(tiny_config, kind):
    """There may be fewer entries than codes of an image."""
    fields = {"quantizer.kind": kind, "quantizer.codebook_size": 6}
    own = untrained_engine(tiny_config.with_fields(fields))
    repeated = np.zeros((1, N), np.int32)
    np.testing.assert_array_equal(own.check(repeated.tolist()), repeated)  # need not be distinct
    order = (lambda codes: codes) if kind == "positional" else np.sort
    face = own.recombine(jax.random.key(0))
    assert np.all((face.codes == face.pairs.a) | (face.codes == face.pairs.b))
    np.testing.assert_array_equal(face.pairs.a, face.a.codes)
    np.testing.assert_array_equal(order(face.pairs.b), face.b.codes)
    again = own.read_codes(own.write_codes(face.codes))
    np.testing.assert_array_equal(again, order(face.codes))
    assert len(own.describe()["factors"]) == (kind == "nearest")


def test_what_parents_tell_is_there_before_anything_else_is_done(engine):
    """The model as if it were published, and its parents as they decode, the last four held out."""
    codes, labels = engine.pool.codes, Labels(engine.pool.labels[:-4], engine.dataset.factors)
    model = dataclasses.replace(engine.model, parents=codes[:-4], labels=labels)
    train, test = Decoded(model, codes[:-4], labels), Decoded(model, codes[-4:])
    dataset = Dataset("random", SIZE, train, test, test, labels.factors)
    own = Engine(model, dataset, "decoded training image", later=lambda: pytest.fail("too early"))
    assert own.describe()["trainingImages"] == 60 and own.describe()["examples"] == 4
    assert own.describe()["factors"] == engine.describe()["factors"]
    shown = own.example(2)
    assert shown.name == "decoded training image 2"
    np.testing.assert_array_equal(shown.codes, test.codes[2])
    np.testing.assert_array_equal(shown.image, own.decode(shown.codes[None])[0])
    codes = some_sets(1, 1)[0]
    assert own.read_factors(codes).tolist() == [-1]  # not known yet
    searched = [own.nearest(codes).searched]
    for text, work in own.left:
        work()
        if text == "decoding training images":
            searched.append(own.nearest(codes).searched)
    assert searched == [1, 32, 60]
    found = own.nearest(codes)
    images = np.concatenate([own.decode(row[None]) for row in train.codes]).astype(int)
    distances = np.square(images - own.decode(codes[None])[0]).sum((1, 2, 3))
    index = int(found.picture.name.removeprefix("training image "))
    assert distances[index] == distances.min()
    assert own.probe is not None
    own.take(engine.dataset)
    assert own.describe()["examples"] == 128 and own.example(5).name == "test image 5"


def test_the_page_opens_on_the_pair_of_which_most_exchanges_are_seen(engine, monkeypatch):
    """Here the code 31 makes an image white, and 30 half of it; all else is black."""

    def decode(sets: np.ndarray) -> np.ndarray:
        images = np.zeros((len(sets), SIZE, SIZE, 3), np.uint8)
        images[(sets == 30).any(1), : SIZE // 2] = 255
        images[(sets == 31).any(1), SIZE // 2 :] = 255
        return images

    sets = np.arange(8) + np.arange(6)[:, None]
    sets[2, -2:], sets[4, -1] = (30, 31), 31
    own = copy.copy(engine)
    own.__dict__.pop("opening", None)
    monkeypatch.setattr(own, "decode", decode)
    monkeypatch.setattr(own, "example", lambda index: SimpleNamespace(codes=np.sort(sets[index])))
    assert own.opening == [0, 2]  # the first pair with two
    effects = own.effects(sets[0], sets[2])
    np.testing.assert_array_equal(np.sort(effects), [0] * 6 + [0.5, 0.5])
