"""`python -m pivq_jax.codec`: its words and its help. What it does is in `folders_test.py`."""

import re

import pytest

from pivq_jax.codec.__main__ import COMMANDS
from tests.main_test import assert_refused

MODEL = "--pretrained=toon_faces"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["give what to do, compress or decompress, as in python -m pivq_jax.codec compress"]),
        ([MODEL, "pack"], ["compress or decompress"]),
        (["compress", "faces", MODEL], ["unexpected argument 'faces'", "--name=value"]),
        (["compress"], ["no model is given: give --pretrained, such as toon_faces"]),
        (["compress", MODEL], ["compress needs --input=FOLDER and --output=FILE"]),
        (["decompress", MODEL, "--output=x"], ["--input=FILE and --output=FOLDER"]),
        (["decompress", MODEL, "--code=prior"], ["--code is for compress, not decompress"]),
        (["compress", MODEL, "--code=long"], ["code", "long", "prior"]),
        (["compress", MODEL, "--mode=compress"], ["mode"]),
        ([MODEL, "compress", "--input=none", "--output=x"], ["no directory"]),
        (["decompress", MODEL, "--input=none", "--output=x"], ["pivq_jax.codec compress"]),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(commands, tmp_path, arguments, words):
    assert_refused(commands.run(*arguments, module="codec", directory=tmp_path), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["loop", "loop/within", "x" * 300])
def test_a_link_in_a_loop_and_a_name_that_is_too_long_are_refused(commands, tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    arguments = ["compress", MODEL, f"--input={tmp_path / name}", "--output=x"]
    done = commands.run(*arguments, module="codec", directory=tmp_path)
    assert_refused(done, str(tmp_path)[:20])


def test_help_says_what_the_words_do(commands):
    done = commands.run("--help", module="codec")
    assert done.code == 0 and not done.stderr
    assert re.findall(r"^  (\w+) {2,}\w", done.stdout, re.MULTILINE) == [*COMMANDS]
    for words in ("--code", "--pretrained=NAME", "Exit codes"):
        assert words in done.stdout
