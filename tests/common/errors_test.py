"""Messages of errors are lines that a terminal can show."""

import pickle

import pytest

from pivq_jax.common.errors import InputError, brief, printable


@pytest.mark.parametrize(
    "text, expected",
    [
        ("no Bild für ä in 数", "no Bild für ä in 数"),
        ("a\x1b[2J\n.png", r"a\x1b[2J\n.png"),
        ("\udcff\u202egnp.exe", r"\udcff\u202egnp.exe"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, expected):
    error = InputError(f"cannot read {text}")
    assert printable(text) == expected and str(error) == f"cannot read {expected}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # as between processes


def test_the_reason_of_a_damaged_file_is_short():
    deep: tuple = ()
    for _ in range(100_000):
        deep = (deep,)
    assert brief(ValueError("two\n  lines")) == "two lines"
    assert brief(ValueError()) == "ValueError"
    assert brief(KeyError(deep)) == "KeyError"
    assert len(brief(ValueError("x" * 10_000))) == 200
