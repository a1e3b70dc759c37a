"""The command that runs all benchmarks, with jobs of a moment; a slow test runs a real one."""

import argparse
import os
import re
import runpy
import subprocess
import sys

import pytest

from benchmarks import all as command
from benchmarks.all import JOBS, Job
from tests.conftest import ROOT

WORKS = Job("works", "timeit -n1 -r1 print('sixteen_faces')")
FAILS = Job("fails", "timeit -n1 -r1 no_such_name")
LAST = Job("last", "timeit -n1 -r1 pass")
# Need photographs or a browser, train many models, or summarize runs.
NO_JOBS = {"baselines", "explore_pictures", "quantizers", "summary"}
HELPERS = {"__init__", "all", "common", "components", "pixels", "vq_vae"}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with other jobs; returns its exit code, output and page."""
    monkeypatch.setattr(command, "default_device", lambda environment: ("cpu", "card"))

    def call(*jobs: Job, arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "JOBS", jobs)
        given = ["all", "--device=cpu", f"--output={tmp_path / 'out'}", *arguments]
        monkeypatch.setattr(sys, "argv", given)
        code = command.main()
        return code, capsys.readouterr().out, (tmp_path / "out/index.md").read_text()

    return call


def test_a_failing_job_is_recorded_and_does_not_stop_the_rest(run, tmp_path):
    code, output, page = run(WORKS, FAILS, LAST)
    assert code == 1
    assert re.findall(r"^(\w+): (\w+)", output, re.M) == [
        ("works", "passed"),
        ("fails", "exit"),
        ("last", "passed"),
    ]
    assert page.startswith("# Benchmarks on card\n")
    assert re.search(r"\| works \| passed in \d+ s, commit \w+", page)
    assert "| fails | exit code 1 in" in page
    assert "sixteen_faces\n" in page and "NameError: name 'no_such_name'" in page
    assert {x.name for x in (tmp_path / "out").iterdir()} == {
        *("index.md", "works.txt", "fails.err", "last.txt")
    }


def test_only_what_has_not_passed_is_run_again(run):
    run(WORKS, FAILS)
    code, output, page = run(WORKS, FAILS._replace(command=LAST.command))
    assert code == 0 and "works:" not in output and "fails: passed" in output
    assert "| works | passed" in page and "| fails | passed" in page
    assert run(WORKS, FAILS, LAST, arguments=("--only=last",))[1].startswith("last: passed")


def test_a_job_is_stopped_when_time_is_over_and_others_are_not_begun(run):
    sleeps = Job("sleeps", "timeit -n1 -r1 __import__('time').sleep(60)")
    code, output, page = run(sleeps, LAST, arguments=("--minutes=0.02",))
    assert code == 1 and "sleeps: stopped" in output and "| last | not run |" in page


def test_a_device_that_is_not_there_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "default_device", lambda environment: ("cpu", "card"))
    monkeypatch.setattr(sys, "argv", ["all", "--device=gpu", f"--output={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "JAX finds a cpu here" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_every_benchmark_is_a_job_or_left_out():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    jobs = {job.command.split()[0].removeprefix("benchmarks.") for job in JOBS}
    assert (jobs - {"pivq_jax.main"}) | NO_JOBS | HELPERS == modules


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs", "configs", "launch"])
def test_every_command_of_the_pages_exists(name):
    path = ROOT / name
    files = [path] if path.is_file() else [*path.rglob("*.md"), *path.rglob("*.py")]
    for file in files:
        for module in re.findall(r"python -m\s+benchmarks\.(\w+)", file.read_text()):
            assert (ROOT / "benchmarks" / f"{module}.py").exists(), (file, module)


@pytest.mark.slow  # all benchmarks are imported
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_programs_know_the_options_of_their_jobs(device, monkeypatch, tmp_path):
    """Ends each program as soon as its arguments are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(self, *arguments):
        parse(self, *arguments)
        sys.exit("parsed")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    for job in JOBS:
        _, module, *options = command.command_of(job, device, tmp_path)
        if module != "pivq_jax.main":
            monkeypatch.setattr(sys, "argv", [module, *options])
            # By its path: another test may have imported the module, of which `run_module` warns.
            file = ROOT / f"{module.replace('.', '/')}.py"
            with pytest.raises(SystemExit, match="parsed"):
                runpy.run_path(str(file), run_name="__main__")


@pytest.mark.slow
def test_real_jobs_on_a_cpu(tmp_path):
    """A training, and what reads it."""
    arguments = ["--device=cpu", f"--output={tmp_path}", "--only=toon_faces_smoke,place_free"]
    environment = {**os.environ, "PIVQ_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "benchmarks.all", *arguments, "--minutes=600"]
    done = subprocess.run(command, cwd=ROOT, env=environment)
    page = (tmp_path / "index.md").read_text()
    assert done.returncode == 0, page
    assert "codes_not_nearest" in page
