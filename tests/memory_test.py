"""Files that people exchange take at most 256 MiB, whatever they claim; `-s` prints how much."""

import sys

import pytest

from tests.crafted import CASES


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of zeros that take no disk")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * c.slow) for n, c in CASES.items()]
)
def test_crafted_files_take_little_memory(name, commands, tmp_path):
    done = commands.run(code=f"from tests.crafted import main; main({name!r}, {str(tmp_path)!r})")
    assert done.code == 0, done.stderr
    message, grown = done.stdout.splitlines()
    print(f"\n{CASES[name].parser:24} {int(grown) / 2**20:6.0f} MiB  {name}")
    assert CASES[name].message in message if CASES[name].message else message == "read"
    assert int(grown) < 2**28
