"""What the page asks for, against NumPy and SciPy."""

import copy
import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from pivq_jax.common.errors import InputError
from pivq_jax.data import Dataset
from pivq_jax.data.images import images_to_float, load_image
from pivq_jax.explore import engine as engine_module
from pivq_jax.explore.engine import BATCH, MAX_EXAMPLES, Engine
from pivq_jax.explore.uploads import read_image
from pivq_jax.inference import Decoded
from pivq_jax.sampling import Labels
from tests.explore.engines import untrained_engine
from tests.explore.image_files import claimed_jpeg, claimed_png, content_of, picture

N, K, SIZE = 8, 32, 16  # of the tiny model
PAGE = Path(engine_module.__file__).parent / "page"


def some_sets(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.permutation(K)[:N]) for _ in range(count)]).astype(np.int32)


def test_the_description_has_what_the_interface_says(engine):
    text = (PAGE / "backend.js").read_text()
    typedefs = dict(re.findall(r"@typedef \{object\} (\w+)\n(.*?)\*/", text, re.DOTALL))
    properties = {
        name: set(re.findall(r"@property \{.*?\} (\w+)", body)) for name, body in typedefs.items()
    }
    found = engine.describe()
    assert properties["Model"] == found.keys()
    assert len(found["entries"]) == found["codebookSize"] == K
    assert all(entry.keys() == properties["Entry"] for entry in found["entries"])
    assert found["numCodes"] == N and found["imageSize"] == SIZE
    assert found["examples"] == 128 and found["trainingImages"] == 64
    assert found["opening"] == [0, 1] and found["prior"] is False
    assert {entry["group"] for entry in found["entries"]} <= {-1, *range(len(found["groups"]))}
    shade = {"name": "shade", "values": ["dark", "light"], "unseen": []}
    assert found["factors"] == [shade]
    assert properties["Factor"] == {*found["factors"][0]}
    assert properties["Pairs"] == {*engine_module.Pairs._fields}
    assert properties["Picture"] == {*engine_module.Picture._fields}
    assert properties["Nearest"] == {*engine_module.Nearest._fields}


def test_the_server_has_the_methods_of_the_interface():
    interface = (PAGE / "backend.js").read_text().partition("@typedef {object} Backend")[2]
    methods = re.findall(r"@property \{.*=> Promise<.*>\} (\w+) -", interface)
    text = (PAGE / "server.js").read_text()
    assert set(methods) == set(re.findall(r"^  async (\w+)\(", text, re.MULTILINE))


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


def test_pairs_cost_the_least(engine):
    codebook = np.asarray(engine.model.codebook, np.float64)
    for a, b in zip(some_sets(1, 10), some_sets(2, 10), strict=True):
        pairs = engine.pair(a, b)
        np.testing.assert_array_equal(pairs.a, a)
        np.testing.assert_array_equal(np.sort(pairs.b), b)
        common = np.isin(a, b)
        np.testing.assert_array_equal(pairs.a[common], pairs.b[common])
        left, right = a[~common], b[~np.isin(b, a)]
        cost = np.square(codebook[left][:, None] - codebook[right]).sum(-1)
        least = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(pairs.cost.sum(), least, rtol=1e-5)


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_there_may_be_fewer_entries_than_codes_of_an_image(tiny_config, kind):
    fields = {"quantizer.kind": kind, "quantizer.codebook_size": 6}
    engine = untrained_engine(tiny_config.with_fields(fields))
    assert engine.recombine(jax.random.key(0)).codes.max() < 6 < engine.num_codes


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
    own = Engine(published, engine.dataset)
    assert own.describe()["factors"] == engine.describe()["factors"]
    for i in range(4):
        codes = engine.example(i).codes
        np.testing.assert_array_equal(own.edit(codes, 0, 0), engine.edit(codes, 0, 1))
    other = Labels(published.labels.values, {"shade": ("light", "dark")})
    model = dataclasses.replace(published, labels=other)
    assert Engine(model, engine.dataset).describe()["factors"] == []


def test_a_value_that_no_image_shows_is_refused_and_the_page_opens(engine, published):
    labels = published.labels._replace(values=np.ones_like(published.labels.values))
    own = Engine(dataclasses.replace(published, labels=labels), engine.dataset)
    assert own.describe()["factors"][0]["unseen"] == [0]
    with pytest.raises(InputError, match="no training image shows shade=dark"):
        own.edit(engine.example(0).codes, 0, 0)


def test_those_who_drew_the_images_are_credited(engine):
    assert engine.describe()["credit"] == ""
    config = engine.model.config.with_fields({"data.name": "toon_faces"})
    own = copy.copy(engine)
    own.model = dataclasses.replace(engine.model, config=config)
    for word in ("Johan Melin", "licenses/by/4.0", "DiceBear"):
        assert word in own.describe()["credit"]


def test_codes_are_written_and_read_and_only_with_their_model(engine):
    codes = some_sets(8, 1)[0]
    content = engine.write_codes(codes)
    np.testing.assert_array_equal(engine.read_codes(content), codes)
    for damaged in (b"", b"text", content[:-1], content[:20] + b"x" + content[21:]):
        with pytest.raises(InputError, match="the file"):
            engine.read_codes(damaged)
    other = bytearray(content[:-8])
    other[7] ^= 1  # the fingerprint
    other += hashlib.sha256(other).digest()[:8]
    with pytest.raises(InputError, match="fingerprint"):
        engine.read_codes(bytes(other))


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


WRONG = {
    "no list": None,
    "no set": [],
    "no sets": [1, 2, 3],
    "too few": [[1, 2, 3]],
    "too many": [list(range(N + 1))],
    "negative": [[-1, *range(N - 1)]],
    "too large": [[K, *range(N - 1)]],
    "a fraction": [[1.5, *range(N - 1)]],
    "a truth": [[True, *range(2, N + 1)]],
    "text": ["12345678"],
    "twice": [[3, 3, *range(10, 10 + N - 2)]],
    "one of two": [list(range(N)), [0] * N],
}


@pytest.mark.parametrize("sets", WRONG.values(), ids=WRONG)
def test_what_are_no_code_sets_is_refused(engine, sets):
    with pytest.raises(InputError):
        engine.check(sets)


@settings(max_examples=50)
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
    assert all(len({*row}) == N and min(row) >= 0 and max(row) < K for row in sets.tolist())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_own_images_are_cropped_as_a_folder_of_images_is(kind, tmp_path):
    content = content_of(picture(200, 100), kind)
    (tmp_path / "image.png").write_bytes(content)
    np.testing.assert_array_equal(read_image(content, 16), load_image(tmp_path / "image.png", 16))
    with pytest.raises(InputError, match="cannot read"):
        read_image(content[: len(content) // 2], 16)


OTHER_FILES = [content_of(picture(), kind) for kind in ("GIF", "BMP", "TIFF", "PPM")]
OTHER_FILES += [b"RIFF\0\0\0\0WEBP"]
OTHER_FILES += [b"", b"text", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe", b"\xff\xd8\xff"]


@pytest.mark.parametrize("content", OTHER_FILES, ids=range(11))
def test_other_files_are_refused(content):
    with pytest.raises(InputError, match=r"(?i)webp"):
        read_image(content, 16)


@pytest.mark.parametrize(
    "content",
    [
        claimed_png(20_000, 10_000),
        claimed_png(100_000, 100_000),
        claimed_png(2**20, 2**10),
        claimed_jpeg(20_000, 10_000),
    ],
    ids=range(4),
)
def test_huge_images_are_refused_by_their_header(content):
    with pytest.raises(InputError, match="pixels, more than 33,554,432"):
        read_image(content, 16)


def test_more_images_than_there_are_or_may_be_at_once(engine):
    assert len(engine.examples(engine.num_examples - 3, MAX_EXAMPLES)) == 3
    with pytest.raises(InputError, match=str(BATCH)):
        engine.decode(some_sets(0, BATCH + 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_other_kinds_of_codes_are_exchanged_in_their_own_way(tiny_config, kind):
    own = untrained_engine(tiny_config.with_fields({"quantizer.kind": kind}))
    assert own.describe()["kind"] == kind
    repeated = np.zeros((1, N), np.int32)
    np.testing.assert_array_equal(own.check(repeated.tolist()), repeated)  # need not be distinct
    for seed in range(3):
        face = own.recombine(jax.random.key(seed))
        assert np.all((face.codes == face.pairs.a) | (face.codes == face.pairs.b))
        order = (lambda codes: codes) if kind == "positional" else np.sort
        np.testing.assert_array_equal(face.pairs.a, face.a.codes)
        np.testing.assert_array_equal(order(face.pairs.b), face.b.codes)
        again = own.read_codes(own.write_codes(face.codes))
        np.testing.assert_array_equal(again, order(face.codes))
        found = own.nearest(face.codes)
        assert found.searched == 64
        if kind == "nearest":
            value = int(own.labelled.read_factors(face.codes[None])[0, 0])
            edited = own.edit(face.codes, 0, 1 - value)
            name = ("dark", "light")[1 - value]
            expected = own.labelled.edit(face.codes[None], shade=name)
            np.testing.assert_array_equal(np.sort(edited), expected[0])
        else:
            assert own.labelled is None and own.describe()["factors"] == []


@pytest.fixture
def parents(engine):
    """The model as if it were published, and its parents as they decode, the last four held out."""
    labels = Labels(engine.pool.labels[:-4], {"shade": ("dark", "light")})
    codes = engine.pool.codes
    model = dataclasses.replace(engine.model, parents=codes[:-4], labels=labels)
    train, test = Decoded(model, codes[:-4], labels), Decoded(model, codes[-4:])
    return model, Dataset("random", SIZE, train, test, test, labels.factors)


def test_what_parents_tell_is_there_before_anything_else_is_done(engine, parents):
    model, dataset = parents
    asked = []
    own = Engine(model, dataset, "decoded training image", later=lambda: asked.append(1))
    assert own.describe()["trainingImages"] == 60 and own.describe()["examples"] == 4
    assert own.describe()["factors"] == engine.describe()["factors"]
    shown = own.example(2)
    assert shown.name == "decoded training image 2"
    np.testing.assert_array_equal(shown.codes, dataset.test.codes[2])
    np.testing.assert_array_equal(shown.image, own.decode(shown.codes[None])[0])
    codes = some_sets(1, 1)[0]
    assert own.read_factors(codes).tolist() == [-1]  # not known yet
    assert own.nearest(codes).searched == 1
    texts = [text for text, _ in own.left]
    assert texts.count("decoding training images") == 2
    for _, work in own.left[: texts.index("decoding training images") + 1]:
        work()
    assert own.nearest(codes).searched == 32
    for _, work in own.left:
        work()
    found = own.nearest(codes)
    images = np.concatenate([own.decode(row[None]) for row in dataset.train.codes]).astype(int)
    distances = np.square(images - own.decode(codes[None])[0]).sum((1, 2, 3))
    index = int(found.picture.name.removeprefix("training image "))
    assert found.searched == 60 and distances[index] == distances.min()
    assert own.probe is not None and not asked
    own.take(engine.dataset)
    assert own.describe()["examples"] == 128 and own.example(5).name == "test image 5"


def test_the_page_opens_on_the_pair_of_which_most_exchanges_are_seen(engine, monkeypatch):
    """Here the code 31 makes an image white, and 30 half of it; all else is black."""

    def decode(sets):
        images = np.zeros((len(sets), SIZE, SIZE, 3), np.uint8)
        for codes, image in zip(sets, images, strict=True):
            image[: SIZE // 2] = 255 * (30 in codes)
            image[SIZE // 2 :] = 255 * (31 in codes)
        return images

    own = copy.copy(engine)
    monkeypatch.setattr(own, "decode", decode)
    sets = [[*range(8)], [*range(1, 9)], [*range(6), 30, 31], [*range(2, 10)]]
    sets += [[*range(7), 31], [*range(3, 11)]]

    def example(index: int) -> Any:
        codes = np.array(sets[index], np.int32)
        return engine_module.Picture("", codes, np.empty((SIZE, SIZE, 3), np.uint8))

    monkeypatch.setattr(own, "example", example)
    own.__dict__.pop("opening", None)
    assert own.opening == [0, 2]  # the first pair with two
    effects = own.effects(np.array(sets[0]), np.array(sets[2]))
    np.testing.assert_array_equal(np.sort(effects), [0] * 6 + [0.5, 0.5])
