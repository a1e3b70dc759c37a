"""`python -m pivq_jax.explore`: from the start to Ctrl-C."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.conftest import ROOT
from tests.main_test import assert_refused


@pytest.mark.slow
def test_the_page_of_a_run_is_served_until_ctrl_c_and_the_run_left_as_it_was(commands, tiny_run):
    workdir = tiny_run.workdir
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    command = commands.start(f"--workdir={workdir}", "--port=0", module="explore")
    output = commands.directory / f"{commands._count}.stdout"

    def use() -> bool:
        text = output.read_text() if output.exists() else ""
        found = re.search(r"http://127\.0\.0\.1:\d+/", text)
        if not found:
            return False
        with urllib.request.urlopen(found[0]) as page:
            assert b"<title>PI-VQ explorer</title>" in page.read()
        with urllib.request.urlopen(f"{found[0]}api/model") as answer:
            model = json.load(answer)
        assert model["numCodes"] == 8 and model["trainingImages"] > 8
        assert model["grouping"] == "cluster"  # a folder has no labels
        return True

    command.kill_when(use, signal.SIGINT)
    done = command.wait()
    assert done.code == 0 and "Traceback" not in done.stderr and "stopped" in done.stdout, done
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workdir=/no/run", "--port=65536"], "65536"),
        ([], "no model is given: give --pretrained"),
        (["--pretrained=no_faces", "--config.sample.count=3"], "no_faces is no directory here"),
    ],
)
def test_mistakes_get_one_line(commands, tmp_path, arguments, words):
    done = commands.run(*arguments, module="explore", directory=tmp_path)
    assert_refused(done, words)
    assert not list(tmp_path.iterdir())


def test_help_teaches(commands):
    done = commands.run("--pretrained=no_faces", "--help", module="explore")
    assert done.code == 0 and not done.stderr
    for words in ("python -m pivq_jax.explore --pretrained=toon_faces", "Exit codes", "--port"):
        assert words in done.stdout


@pytest.mark.slow
def test_a_missing_extra_is_named_and_nothing_else_needs_it(tmp_path):
    code = f"""
import sys
sys.modules["starlette"] = None
from pathlib import Path
from pivq_jax.commands.task import Task
from pivq_jax.common.errors import InputError
from pivq_jax.explore.__main__ import explore
assert "uvicorn" not in sys.modules
try:
    explore(Task(None, Path({str(tmp_path)!r})), "127.0.0.1", 0)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "pip install '.[explore]'" in done.stdout, done
