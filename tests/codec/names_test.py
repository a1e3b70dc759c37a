"""Names that become paths."""

import tracemalloc

import pytest

from pivq_jax.codec.names import check_names, png_name
from pivq_jax.common.errors import InputError

GOOD = [
    *("a.png", "deep/er/a.jpg", "A.PNG", "ä ö.png", "顔.webp", "e\u0301.png", "\u00e9.png"),
    *("...", "..a", "a..", ".hidden", " ", "2024-01-01 10:00:00.jpg", "line\nbreak", "emoji 🙂"),
]
BAD = [
    *("", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a\0b"),
    *("\ud800", "/", "//", "/etc/passwd", "a/../../b"),
]


def test_good_names_are_kept_in_order():
    assert check_names(GOOD) == tuple(GOOD)


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused(name):
    with pytest.raises(InputError) as refused:
        check_names(["good.png", name])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "names, words",
    [
        (["a.png", "b.png", "a.png"], "'a.png' occurs twice"),
        (["a.jpg", "a.jpg.png"], "'a.jpg' would become one file"),
        (["a/b.png", "a/c.png", "a"], ""),
        (["a.png/b.png", "a"], "'a' is also the folder of 'a.png/b.png'"),
        (["a.png", "a.png/b/c.png"], "'a.png' is also the folder"),
    ],
)
def test_names_that_would_meet_are_refused(names, words):
    if not words:  # "a" becomes "a.png"
        assert check_names(names) == tuple(names)
        return
    with pytest.raises(InputError, match=words):
        check_names(names)


def test_a_name_of_many_folders_is_refused_before_it_is_taken_apart():
    with pytest.raises(InputError, match=r"'a/a/.*\.\.\.' has 800,001 characters") as refused:
        check_names(["a/" * 400_000 + "a"])
    assert len(str(refused.value)) < 300


def test_folders_within_folders_take_no_more_memory_than_there_may_be():
    deep = (f"{i}/{'a/' * 1_900}a" for i in range(10**9))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="folders, too many within each other"):
            check_names(deep)
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_the_first_fault_ends_the_reading():
    def endless():
        while True:
            yield "a"

    with pytest.raises(InputError, match="occurs twice"):
        check_names(endless())


def test_names_of_png_files():
    assert [png_name(name) for name in ("a.png", "a.PNG", "a.jpg", "b/a", "a.png.gif")] == [
        *("a.png", "a.PNG", "a.jpg.png", "b/a.png", "a.png.gif.png")
    ]
