"""The atlas lists the codes that tell most, and measures what exchanging one changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import atlas
from pivq_jax.sampling import CodeSpace

K, N, M = 24, 5, 400
SPACE = CodeSpace(N, K)

FACTORS = {"colour": ("#ff0000", "#00ff00", "#0000ff"), "hat": ("no", "yes"), "noise": ("p", "q")}


class Lamps:
    """Stands for a trained model: code k lights pixel k of a 4 x 6 image."""

    space = SPACE
    codebook = jnp.asarray(np.random.default_rng(0).normal(size=(K, 3)), jnp.float32)

    def decode(self, codes):
        lit = jnp.zeros((len(codes), K)).at[jnp.arange(len(codes))[:, None], codes].set(1.0)
        return jnp.tile((2 * lit - 1).reshape(-1, 4, 6, 1), (1, 1, 1, 3))


@pytest.fixture(scope="module")
def faces():
    """Codes 0, 1, 2 tell the colour and 3 or 4 the hat; code 5 is in all images, 6 to 23 vary."""
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, len(v), M) for v in FACTORS.values()], axis=1)
    hat = 3 + (labels[:, 1] ^ (rng.random(M) < 0.1))
    others = np.stack([rng.permutation(np.arange(6, K))[:2] for _ in range(M)])
    codes = np.stack([labels[:, 0], hat, np.full(M, 5), *others.T], axis=1)
    return np.sort(codes, axis=1).astype(np.int32), labels


def test_mutual_information_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    present = rng.random((300, 5)) < np.array([0.1, 0.5, 0.9, 0, 1])
    present[:, 1] |= labels == 2
    expected = [
        sklearn.metrics.mutual_info_score(column, labels) / np.log(2) for column in present.T
    ]
    counts = np.stack([np.bincount(labels[column], minlength=4) for column in present.T])
    found = atlas.mutual_information(counts, labels)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[1] > 0.1 and found[3] == found[4] == 0


def test_the_codes_that_tell_most_are_listed_factor_by_factor(faces):
    codes, labels = faces
    found = atlas.informative_codes(SPACE, codes, labels, FACTORS, count=10)
    assert [m.factor for m in found[:2]] == ["colour", "hat"]  # the best of each factor first
    assert {m.code for m in found} == {0, 1, 2, 3, 4}  # nothing by chance, nothing that all have
    for meaning in found:
        has = (codes == meaning.code).any(1)
        assert meaning.share == pytest.approx(has.mean())
        column = list(FACTORS).index(meaning.factor)
        value = FACTORS[meaning.factor].index(meaning.value)
        assert meaning.value_share == pytest.approx(np.mean(labels[has, column] == value))
        assert meaning.value_share_of_all == pytest.approx(np.mean(labels[:, column] == value))
        assert meaning.value_share > 0.8
    assert [m.code for m in atlas.informative_codes(SPACE, codes, labels, FACTORS, 2)] == [
        m.code for m in found[:2]
    ]


def test_a_factor_of_many_values_does_not_take_the_codes_of_others():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 2, 4_000), rng.integers(0, 200, 4_000)], axis=1)
    seldom = rng.random(4_000) < np.where(labels[:, 0] == 1, 0.04, 0.01)
    codes = np.where(seldom, 0, rng.integers(1, K, 4_000))[:, None]
    factors = {"hat": ("no", "yes"), "age": tuple(map(str, range(200)))}
    meaning, *others = atlas.informative_codes(CodeSpace(1, K), codes, labels, factors, K)
    assert (meaning.code, meaning.factor, meaning.value) == (0, "hat", "yes") and not others


def test_without_labels_codes_of_most_entropy_come_first(faces):
    codes, _ = faces
    found = atlas.informative_codes(SPACE, codes, np.empty((M, 0), int), {}, count=3)
    assert {m.code for m in found[:2]} == {3, 4} and found[0].factor == ""
    assert found[0].bits > 0.99 and found[0].bits >= found[1].bits >= found[2].bits


def test_an_exchange_turns_off_the_code_and_nothing_else_of_the_image(faces):
    codes, _ = faces
    found = atlas.exchange(Lamps(), codes, code=7, count=12, key=jax.random.key(0), batch_size=5)
    has = np.flatnonzero((codes == 7).any(1))
    np.testing.assert_array_equal(found.images, has[:12])
    before, after = (x[..., 0].reshape(12, K) > 127 for x in (found.before, found.after))
    np.testing.assert_array_equal(before, (codes[found.images][..., None] == np.arange(K)).any(1))
    assert before[:, 7].all() and not after[:, 7].any()
    assert np.all((before & ~after).sum(1) == 1) and np.all((after & ~before).sum(1) == 1)
    expected = 255 * (before != after).mean(0)
    np.testing.assert_allclose(found.change.ravel(), expected, rtol=1e-5)
    again = atlas.exchange(Lamps(), codes, code=7, count=12, key=jax.random.key(0), batch_size=12)
    np.testing.assert_array_equal(found.after, again.after)


def test_fewer_images_than_asked_and_none(faces):
    codes, _ = faces
    rare = codes.copy()
    rare[rare == 7] = 8  # sets stay sets for the images used here
    rare[3] = [0, 3, 5, 7, 9]
    found = atlas.exchange(Lamps(), rare[:20], code=7, count=6, key=jax.random.key(0), batch_size=4)
    assert found.images.tolist() == [3] and found.before.shape == (1, 4, 6, 3)
    with pytest.raises(InputError, match="code 5 is in all of 400 images"):
        atlas.exchange(Lamps(), codes, code=5, count=6, key=jax.random.key(0), batch_size=4)
    with pytest.raises(InputError, match="code 7 is in none of 10 images"):
        atlas.exchange(Lamps(), rare[10:20], code=7, count=6, key=jax.random.key(0), batch_size=4)


def test_picture_shows_images_exchanges_and_heat(faces):
    codes, labels = faces
    meanings = atlas.informative_codes(SPACE, codes, labels, FACTORS, 3)
    entries = [
        (m, atlas.exchange(Lamps(), codes, m.code, 5, jax.random.key(0), 8)) for m in meanings
    ]
    # A class may be called so without being a colour.
    entries[0] = entries[0][0]._replace(value="#1 smile"), entries[0][1]
    source = [{"image": np.full((4, 4, 3), i % 200, np.uint8)} for i in range(M)]
    squares = [
        (m, e._replace(before=e.before[:, :, :4], after=e.after[:, :, :4], change=e.change[:, :4]))
        for m, e in entries
    ]
    picture = atlas.atlas_picture(source, squares, examples=4, pairs=1)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    for _, found in entries:
        for image in found.images[:4]:
            tile = np.full((96, 96, 3), image % 200, np.uint8)
            windows = np.lib.stride_tricks.sliding_window_view(picture[:, :, 0], (96, 96))
            hits = (windows[:, ::1, 0, 0] == image % 200) & (windows[:, :, 95, 95] == image % 200)
            assert any(
                np.array_equal(picture[y : y + 96, x : x + 96], tile) for y, x in np.argwhere(hits)
            )
    assert np.any(np.all(picture == (0, 0, 0), axis=-1)) and tuple(picture[-1, -1]) != (1, 1, 1)
