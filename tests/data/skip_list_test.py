"""Lists of words: what is found in names of files, and how a list is read."""

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.skip_list import SkipList, read_skip_list


@pytest.mark.parametrize(
    "file, found",
    [
        ("00/young_MAD  max.png", "mad max"),
        ("mad-mad-max-rockatansky.png", "mad max"),
        ("mad-maxim.png", ""),
        ("nomad-max.png", ""),
        ("mad-or-max.png", ""),
        ("Mad-Max/elf-1.png", ""),
        ("elf.mad max", ""),  # a suffix
        ("an-\u00c9lan-vital.png", "\u00e9lan"),
        ("1+1.png", ""),
    ],
)
def test_expressions_are_found_as_whole_words_of_the_name(file, found):
    assert SkipList(["mad max", "\u00c9lan", ".*", "max rockatansky"]).find(file) == found


def test_a_file_has_an_expression_on_each_line_and_comments(tmp_path):
    (path := tmp_path / "words.txt").write_text("# films\nmad max  # 1979\n\n  Trinity\r\n--\n")
    skip = read_skip_list(path)
    found = [skip.find(f"{name}.png") for name in ("a-trinity", "mad-max", "films", "1979")]
    assert found == ["trinity", "mad max", "", ""]


def test_the_digest_is_that_of_the_expressions():
    digest = SkipList(["mad max", "trinity"]).digest
    assert SkipList(["Trinity ", "Mad-Max", "mad max"]).digest == digest
    assert SkipList(["mad", "max", "trinity"]).digest != digest
    assert SkipList(["trinity"]).digest != digest


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "words.txt: there is no such file"),
        (b"# nothing\n---\n", "holds no words: give an expression on each line"),
        (b"\x89PNG\xff", "no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_skip_list(tmp_path / "words.txt")
