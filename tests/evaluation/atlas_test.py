"""The atlas measures and shows what exchanging a code changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import atlas
from pivq_jax.sampling import informative_codes
from tests.sampling.meaning_test import FACTORS, SPACE, K, M, labelled_codes


class Lamps:
    """Stands for a trained model: code k lights pixel k of a 4 x 6 image."""

    space = SPACE
    codebook = jnp.asarray(np.random.default_rng(0).normal(size=(K, 3)), jnp.float32)

    def decode(self, codes):
        lit = jnp.zeros((len(codes), K)).at[jnp.arange(len(codes))[:, None], codes].set(1.0)
        return jnp.tile((2 * lit - 1).reshape(-1, 4, 6, 1), (1, 1, 1, 3))


def test_an_exchange_turns_off_the_code_and_nothing_else_of_the_image():
    codes, _ = labelled_codes()
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


def test_fewer_images_than_asked_and_none():
    codes, _ = labelled_codes()
    rare = codes.copy()
    rare[rare == 7] = 8  # sets stay sets for the images used here
    rare[3] = [0, 3, 5, 7, 9]

    def exchange(codes, code):
        return atlas.exchange(Lamps(), codes, code, count=6, key=jax.random.key(0), batch_size=4)

    found = exchange(rare[:20], 7)
    assert found.images.tolist() == [3] and found.before.shape == (1, 4, 6, 3)
    with pytest.raises(InputError, match="code 5 is in all of 400 images"):
        exchange(codes, 5)
    with pytest.raises(InputError, match="code 7 is in none of 10 images"):
        exchange(rare[10:20], 7)


def test_picture_shows_images_and_exchanges():
    codes, labels = labelled_codes()
    entries = []
    for meaning in informative_codes(SPACE, codes, labels, FACTORS, 3):
        found = atlas.exchange(Lamps(), codes, meaning.code, 5, jax.random.key(0), 8)
        before, after = (x[:, :, :4] for x in (found.before, found.after))
        found = found._replace(before=before, after=after, change=found.change[:, :4])
        entries.append((meaning, found))
    # A class may be called so without being a colour.
    entries[0] = entries[0][0]._replace(value="#1 smile"), entries[0][1]
    source = [{"image": np.full((4, 4, 3), i % 200, np.uint8)} for i in range(M)]
    picture = atlas.atlas_picture(source, entries, examples=4, pairs=1)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    tiles = np.lib.stride_tricks.sliding_window_view(picture[:, :, 0], (96, 96))
    for _, found in entries:
        for shade in found.images[:4] % 200:
            likely = (tiles[:, :, 0, 0] == shade) & (tiles[:, :, 95, 95] == shade)
            assert any(np.all(tiles[y, x] == shade) for y, x in np.argwhere(likely))
