"""Names that become paths."""

import itertools
import tracemalloc

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import names as names_module
from pivq_jax.data.names import check_names, png_names


def test_good_names_are_accepted():
    check_names(["a.png", "deep/er/a.jpg", "A.PNG", "顔.webp", "e\u0301.png", "\u00e9.png", "..."])
    check_names(["..a", ".hidden", " ", "2024-01-01 10:00:00.jpg", "line\nbreak", "emoji 🙂"])
    check_names(["a/b.png", "a/c.png", "a"])  # the last one becomes "a.png"


@pytest.mark.parametrize(
    "names, message",
    [
        ([""], "is empty"),
        (["a\0b"], "contains NUL"),
        (["\ud800"], "is not Unicode"),
        *(
            (["good.png", name], "is not a path below")
            for name in ("/a", "a/", "a//b", ".", "a/..")
        ),
        (["a.png", "b.png", "a.png"], "two images would become 'a.png'"),
        (["a.jpg", "a.png", "a.jpg.png"], "two images would become 'a.jpg.png'"),
        (["a.png/b.png", "a"], "'a.png' would become an image and the folder of 'a.png/b.png'"),
        (["a.png", "a.png-b", "a.png/b/c.png"], "'a.png' would become an image and"),
        (["a/" * 400_000 + "a"], r"'a/a/.*\.\.\.' has 800,001 characters"),
    ],
)
def test_bad_names_and_those_that_would_meet_are_refused(names, message):
    with pytest.raises(InputError, match=message) as refused:
        check_names(names)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300


def test_names_take_no_more_memory_than_their_text_and_too_many_end_the_reading(monkeypatch):
    deep = [f"{i}/{'a/' * 1_900}a" for i in range(1_000)]
    tracemalloc.start()
    try:
        check_names(deep)
        assert tracemalloc.get_traced_memory()[1] < 3 * sum(map(len, deep))
    finally:
        tracemalloc.stop()
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
