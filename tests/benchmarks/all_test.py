"""The command that runs all benchmarks, with jobs of a moment."""

import argparse
import itertools
import re
import runpy
import sys

import pytest

from benchmarks import all as command
from benchmarks.all import JOBS, Job
from tests.conftest import ROOT

WORKS = Job("works", "timeit -n1 -r1 print('sixteen_faces')")
FAILS = Job("fails", "timeit -n1 -r1 no_such_name")
LAST = Job("last", "timeit -n1 -r1 pass")
# Need photographs or a browser, train many models, or summarize runs.
NO_JOBS = {"animation", "baselines", "explore_pictures", "quantizers", "silent_codes", "summary"}
HELPERS = {"__init__", "all", "common", "components", "pixels", "vq_vae"}
SUFFIXES = (".md", ".py")


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


def test_only_what_has_not_passed_is_run_again_as_long_as_there_is_time(run):
    run(WORKS, FAILS)
    code, output, page = run(WORKS, FAILS._replace(command=LAST.command))
    assert code == 0 and "works:" not in output and "fails: passed" in output
    assert "| works | passed" in page and "| fails | passed" in page
    assert run(WORKS, FAILS, LAST, arguments=("--only=last",))[1].startswith("last: passed")
    sleeps = Job("sleeps", "timeit -n1 -r1 __import__('time').sleep(60)")
    code, output, page = run(sleeps, WORKS._replace(name="more"), arguments=("--minutes=0.02",))
    assert code == 1 and "sleeps: stopped" in output and "| more | not run |" in page


def test_every_benchmark_is_a_job_or_left_out():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    jobs = {job.command.split()[0].removeprefix("benchmarks.") for job in JOBS}
    assert (jobs - {"pivq_jax.main"}) | NO_JOBS | HELPERS == modules


def test_every_command_of_the_pages_exists():
    folders = (ROOT / name for name in ("docs", "configs", "launch"))
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in SUFFIXES]
    for file in (*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for module in re.findall(r"python -m\s+benchmarks\.(\w+)", file.read_text()):
            assert (ROOT / "benchmarks" / f"{module}.py").exists(), (file, module)


@pytest.mark.slow  # all benchmarks are imported
def test_programs_know_the_options_of_their_jobs(monkeypatch, tmp_path):
    """Ends each program as soon as its arguments are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(self, *arguments):
        parse(self, *arguments)
        sys.exit("parsed")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    for job, device in itertools.product(JOBS, ("cpu", "gpu")):
        _, module, *options = command.command_of(job, device, tmp_path)
        if module != "pivq_jax.main":
            monkeypatch.setattr(sys, "argv", [module, *options])
            # By its path: another test may have imported the module, of which `run_module` warns.
            file = ROOT / f"{module.replace('.', '/')}.py"
            with pytest.raises(SystemExit, match="parsed"):
                runpy.run_path(str(file), run_name="__main__")
