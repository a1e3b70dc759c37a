"""Names that become paths."""

import itertools
import tracemalloc

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import names as names_module
from pivq_jax.data.names import check_names, png_names

GOOD = [
    *("a.png", "deep/er/a.jpg", "A.PNG", "ä ö.png", "顔.webp", "e\u0301.png", "\u00e9.png"),
    *("...", "..a", "a..", ".hidden", " ", "2024-01-01 10:00:00.jpg", "line\nbreak", "emoji 🙂"),
]
BAD = [
    *("", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a\0b"),
    *("\ud800", "/", "//", "/etc/passwd", "a/../../b"),
]


def test_good_names_are_accepted():
    check_names(GOOD)
    check_names(["a/b.png", "a/c.png", "a"])  # the last one becomes "a.png"


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused(name):
    with pytest.raises(InputError) as refused:
        check_names(["good.png", name])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "names, words",
    [
        (["a.png", "b.png", "a.png"], "two images would become 'a.png'"),
        (["a.jpg", "a.png", "a.jpg.png"], "two images would become 'a.jpg.png'"),
        (["a.png/b.png", "a"], "'a.png' would become an image and the folder of 'a.png/b.png'"),
        (["a.png", "a.png.png", "a.png-b", "a.png/b/c.png"], "'a.png' would become an image and"),
    ],
)
def test_names_that_would_meet_are_refused(names, words):
    with pytest.raises(InputError, match=words):
        check_names(names)


def test_a_name_of_many_folders_is_refused_before_it_is_taken_apart():
    with pytest.raises(InputError, match=r"'a/a/.*\.\.\.' has 800,001 characters") as refused:
        check_names(["a/" * 400_000 + "a"])
    assert len(str(refused.value)) < 300


def test_folders_within_folders_take_no_more_memory_than_their_names():
    deep = [f"{i}/{'a/' * 1_900}a" for i in range(1_000)]
    tracemalloc.start()
    try:
        check_names(deep)
        assert tracemalloc.get_traced_memory()[1] < 3 * sum(map(len, deep))
    finally:
        tracemalloc.stop()


def test_too_many_names_end_the_reading(monkeypatch):
    monkeypatch.setattr(names_module, "MAX_NAMES", 100)
    check_names(f"{i}" for i in range(100))
    with pytest.raises(InputError, match="more than 100 names"):
        check_names(f"{i}" for i in itertools.count())


def test_names_of_png_files():
    names = ["a.png", "a.PNG", "b.jpg", "c/d", "a.png.gif", "e.v2", "c/f.jpg", "c/f.webp", "f.jpg"]
    assert list(png_names(names)) == [
        *("a.png", "a.PNG", "b.png", "c/d.png", "a.png.png", "e.v2.png"),
        *("c/f.jpg.png", "c/f.webp.png", "f.png"),
    ]
