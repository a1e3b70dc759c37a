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
        (["compress"], ["no model is given: give --pretrained, such as toon_faces"]),
        (["compress", MODEL], ["compress needs --input=FOLDER and --output=FILE"]),
        (["decompress", MODEL, "--code=prior"], ["--code is for compress, not decompress"]),
        ([MODEL, "compress", "--input=none", "--output=x"], ["no directory"]),
        (["decompress", MODEL, "--input=none", "--output=x"], ["pivq_jax.codec compress"]),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(commands, tmp_path, arguments, words):
    assert_refused(commands.run(*arguments, module="codec", directory=tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_help_says_what_the_words_do(commands):
    done = commands.run("--help", module="codec")
    assert done.code == 0 and not done.stderr
    assert re.findall(r"^  (\w+) {2,}\w", done.stdout, re.MULTILINE) == [*COMMANDS]
