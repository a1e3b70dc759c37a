"""`python -m pivq_jax.explore`: from the start to Ctrl-C."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from pivq_jax.explore.server import listen
from tests.conftest import ROOT
from tests.main_test import assert_refused


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_the_page_of_a_run_is_served_until_it_is_stopped(commands, tiny_run, number, code):
    workdir = f"--workdir={tiny_run.workdir}"
    before = {path: path.stat().st_mtime_ns for path in tiny_run.workdir.rglob("*")}
    command = commands.start(workdir, "--port=0", module="explore")
    output = commands.directory / f"{commands._count}.stdout"
    found = []

    def ready() -> bool:
        found[:] = re.findall(
            r"http://127\.0\.0\.1:\d+/", output.read_text() if output.exists() else ""
        )
        return bool(found)

    def use() -> bool:
        if not ready():
            return False
        with urllib.request.urlopen(found[0]) as page:
            assert b"<title>PI-VQ explorer</title>" in page.read()
        with urllib.request.urlopen(f"{found[0]}api/model") as answer:
            model = json.load(answer)
        assert model["numCodes"] == 8 and model["trainingImages"] > 8
        assert model["grouping"] == "cluster"  # a folder has no labels
        return True

    command.kill_when(use, number)
    done = command.wait()
    assert done.code == code and "Traceback" not in done.stderr, done
    assert ("stopped" in done.stdout) == (number == signal.SIGINT)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.workdir.rglob("*")} == before


@pytest.mark.slow
def test_a_port_in_use_is_one_error_before_the_model_is_opened(commands, tiny_run):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = commands.run(f"--workdir={tiny_run.workdir}", f"--port={port}", module="explore")
    assert done.code == 2 and len(done.stderr.splitlines()) == 1
    assert f"port {port}" in done.stderr and "in use" in done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workdir=/no/run"], "no config.json"),
        (["--workdir=/no/run", "--port=65536"], "65536"),
        (["--workdir=/no/run", "serve"], "unexpected argument 'serve'"),
        ([], "no model is given: give --pretrained"),
        (["--pretrained=no_faces", "--config.sample.count=3"], "no_faces is no directory here"),
        (["--pretrained=toon_faces", "--input=faces"], "Unknown command line flag 'input'"),
    ],
)
def test_mistakes_get_one_line(commands, tmp_path, arguments, words):
    done = commands.run(*arguments, module="explore", directory=tmp_path)
    assert_refused(done, words)
    assert not list(tmp_path.iterdir())


def test_help_teaches(commands):
    done = commands.run("--pretrained=no_faces", "--config.seed=3", "--help", module="explore")
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
