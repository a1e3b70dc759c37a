"""The command that runs all benchmarks, with jobs of a moment; a slow test runs real ones."""

import argparse
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import all as command
from benchmarks.jobs import JOBS, LEFT_OUT, Job
from tests.conftest import ROOT

# Writes its process id, then sleeps.
SLEEPS = Job(
    "sleeps",
    (1, 1),
    "timeit -n1 -r1 open('{folder}/pid','w').write(str(__import__('os').getpid()));"
    "__import__('time').sleep(60)",
)
WORKS = Job("works", (1, 1), "timeit -n1 -r1 print('sixteen_faces')")
FAILS = Job("fails", (1, 1), "timeit -n1 -r1 no_such_name")
LAST = Job("last", (1, 1), "timeit -n1 -r1 pass")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with other jobs; returns its exit code, output and page."""
    monkeypatch.setattr(command, "find_device", lambda device: ("card x 1", "runtime 1"))

    def call(*jobs: Job, arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "JOBS", jobs)
        code = command.main(["--device=cpu", f"--output={tmp_path / 'out'}", *arguments])
        return code, capsys.readouterr().out, (tmp_path / "out/index.md").read_text()

    return call


def refusal(arguments: list[str], capsys) -> str:
    """The one line that the command refuses arguments with."""
    try:
        code = command.main(arguments)
    except SystemExit as stop:
        code = stop.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    return line


def test_a_failing_job_is_recorded_and_does_not_stop_the_rest(run, tmp_path):
    code, output, page = run(WORKS, FAILS, LAST)
    assert code == 1
    assert "2 passed, 1 failed" in output and "NameError: name 'no_such_name'" in output
    assert page.startswith("# Benchmarks on card x 1\n") and "runtime runtime 1" in page
    assert "| [passed](#works) |" in page and "| [failed](#fails) |" in page
    assert "sixteen_faces\n" in page and "NameError: name 'no_such_name'" in page
    assert (tmp_path / "out/works.txt").read_text().startswith("sixteen_faces\n")
    assert "Traceback" in (tmp_path / "out/fails.err").read_text()


def test_only_what_has_not_passed_is_run_again(run, tmp_path):
    run(WORKS, FAILS)
    before = (tmp_path / "out/works.txt").stat().st_mtime_ns
    code, output, _ = run(WORKS, FAILS._replace(command=LAST.command))
    assert code == 0 and "1 jobs; 1 have passed before" in output
    assert (tmp_path / "out/works.txt").stat().st_mtime_ns == before

    (tmp_path / "out/works.txt").unlink()  # asks for it again
    assert "1/1 works" in run(WORKS, FAILS._replace(command=LAST.command))[1]
    assert (tmp_path / "out/works.txt").exists()


def test_another_commit_or_version_is_said(run, tmp_path):
    run(WORKS)
    out = tmp_path / "out"
    records = json.loads((out / "jobs.json").read_text())
    works = records["jobs"]["works"]
    works["versions"] |= {"commit": "abc", "jax": "0.0.1"}
    trains = Job("trains", (1, 1), "pivq_jax.main --workdir={folder}/runs/trains")
    there = command.Plan("cpu", out).command(trains)
    records["jobs"]["trains"] = {**works, "command": there}
    (out / "trains.txt").touch()
    (out / "jobs.json").write_text(json.dumps(records))
    _, output, page = run(WORKS, trains)
    assert "works has passed before, with commit abc, jax 0.0.1: delete" in output
    assert f"delete {out}/works.txt to run it again\n" in output
    assert f"delete {out}/trains.txt and {out}/runs/trains to run it again\n" in output
    assert "[passed](#works), with commit abc, jax 0.0.1 |" in page


def test_what_does_not_fit_or_lacks_something_is_not_run(run):
    needy = LAST._replace(name="needy", needs=("no_such_package",))
    reader = LAST._replace(name="reader", command="timeit -n1 -r1 '{run}'")
    long = LAST._replace(name="long", seconds=(90, 90))
    elsewhere = LAST._replace(name="elsewhere", seconds=(0, 90))
    code, output, page = run(needy, reader, long, elsewhere, arguments=("--minutes=1",))
    assert code == 1 and "3 not run" in output
    assert "| needy | not run: needs the package no_such_package |" in page
    assert "| reader | not run: needs what toon_faces_smoke trains |" in page
    assert "| long | not run: too little of --minutes=1 was left for it |" in page
    assert "\n- elsewhere: not on this kind of device\n" in page and "| elsewhere |" not in page


@pytest.mark.slow
def test_a_job_is_stopped_at_its_limit(run):
    code, output, page = run(SLEEPS, LAST, arguments=("--minutes=0.5",))
    assert code == 1 and "1 stopped, 1 passed" in output
    assert "stopped: after 6 seconds" in page


def test_invalid_input_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    output = f"--output={tmp_path / 'out'}"
    assert "--device: invalid choice: 'abacus'" in refusal(["--device=abacus", output], capsys)
    only = refusal(["--device=cpu", output, "--only=matching,such"], capsys)
    assert "no job is named 'such': use some of matching, versus_torch" in only
    assert "give more than 0" in refusal(["--device=cpu", output, "--minutes=0"], capsys)
    (tmp_path / "file").touch()
    place = [f"--output={tmp_path / 'file' / 'out'}", "--device=cpu"]
    assert f"{tmp_path / 'file'} is a file: choose another --output" in refusal(place, capsys)
    assert not (tmp_path / "out").exists()

    found = '["cpu", "cpu", 1, "runtime"]'
    monkeypatch.setattr(command, "PROBE", f"print({found!r})")
    assert "(it finds a CPU only): install JAX" in refusal(["--device=gpu", output], capsys)
    monkeypatch.setattr(command, "PROBE", "raise RuntimeError('no libtpu')")
    assert "(RuntimeError: no libtpu): install" in refusal(["--device=tpu", output], capsys)


def test_results_of_another_device_are_not_mixed_in(run, tmp_path, capsys, monkeypatch):
    run(WORKS)
    monkeypatch.setattr(command, "find_device", lambda device: ("other x 1", ""))
    arguments = ["--device=cpu", f"--output={tmp_path / 'out'}"]
    assert "of another device, card x 1, not of other x 1" in refusal(arguments, capsys)
    assert (tmp_path / "out/index.md").read_text().startswith("# Benchmarks on card x 1")


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_job_and_keeps_what_has_passed(tmp_path, number, code):
    script = f"""
import runpy, sys
import benchmarks.jobs as jobs
jobs.JOBS = (jobs.{WORKS!r}, jobs.{SLEEPS!r})
sys.argv = ["all", "--device=cpu", "--output={tmp_path}"]
runpy.run_module("benchmarks.all", run_name="__main__", alter_sys=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not ((file := tmp_path / "pid").exists() and (job := file.read_text())):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not Path(f"/proc/{job}").exists()
    assert list(json.loads((tmp_path / "jobs.json").read_text())["jobs"]) == ["works"]
    assert not (tmp_path / "sleeps.txt").exists()


def test_every_benchmark_is_a_job_or_left_out_for_a_reason():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    helpers = {"__init__", "all", "common", "jobs", "runs", "screen"}
    ours = [job.command.split()[0] for job in JOBS]
    run = {name.removeprefix("benchmarks.") for name in ours if name != "pivq_jax.main"}
    left_out = [name for names in LEFT_OUT.values() for name in names]
    assert sorted([*run, *left_out, *helpers]) == sorted(modules)
    assert len({job.name for job in JOBS}) == len(JOBS)


def test_an_accelerator_measures_the_whole_model_and_a_cpu_a_small_one():
    (step,) = (job for job in JOBS if job.name == "training_step")
    folder = Path("out")
    small, whole = (command.Plan(device, folder).command(step) for device in ("cpu", "gpu"))
    assert "--workdir=out/runs/toon_faces_smoke" in small and "--repeats=5" in small
    assert "--workdir=out/runs/toon_faces" in whole and "--repeats=5" not in whole
    names = [job.name for job in command.Plan(device="gpu", folder=folder).jobs()]
    assert names[:2] == ["matching", "versus_torch"] and "edits" in names
    assert "edits" not in [job.name for job in command.Plan("cpu", folder).jobs()]


@pytest.mark.slow  # all benchmarks are imported
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_programs_know_the_options_of_their_jobs(device, monkeypatch):
    """Ends each program as soon as its arguments are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(self, *arguments):
        parse(self, *arguments)
        sys.exit("parsed")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    plan = command.Plan(device, Path("out"))
    for job in plan.jobs():
        _, module, *options = plan.command(job)
        if module != "pivq_jax.main":
            monkeypatch.setattr(sys, "argv", [module, *options])
            # By its path: another test may have imported the module, of which `run_module` warns.
            file = ROOT / f"{module.replace('.', '/')}.py"
            with pytest.raises(SystemExit, match="parsed"):
                runpy.run_path(str(file), run_name="__main__")


@pytest.mark.slow
def test_real_jobs_on_a_cpu(tmp_path):
    """A training, one that is stopped and continued, and what reads the first."""
    names = "toon_faces_smoke,resume,conflicts"
    arguments = ["--device=cpu", f"--output={tmp_path}", f"--only={names}", "--minutes=600"]
    environment = {**os.environ, "PIVQ_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.all", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    page = (tmp_path / "index.md").read_text()
    assert done.returncode == 0, page
    assert "3 passed" in done.stdout and "equal bit for bit" in page
