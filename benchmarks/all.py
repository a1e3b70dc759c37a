"""Runs the benchmarks on a device, one after another, and writes one page about them.

    python -m benchmarks.all --device=gpu --output=DIR [--minutes=60] [--only=NAME,...]

Each benchmark is a job in a process of its own; those that tell most about a device come first. On
a CPU, models and samples are small (half an hour on one core): figures show that a benchmark works,
and hardly more. --device=gpu needs JAX with CUDA and, for the comparison, PyTorch with CUDA.

Writes to DIR: index.md, the page, after every job; NAME.txt and NAME.err, the output of each job;
jobs.json. The same command continues where it was stopped. Jobs that have passed are not repeated,
unless NAME.txt is deleted and, for a training, runs/NAME as well. Jobs that have failed, or did not
fit into --minutes, are tried again.

Exit codes: 0 all passed; 1 some failed or were not run; 2 invalid input, reported before any work;
130 stopped by Ctrl-C.
"""

import argparse
import collections
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import commit
from benchmarks.jobs import JOBS, LEFT_OUT, Job
from pivq_jax.common.command_line import CommandParser, resumable_exit_code
from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import (
    check_directory,
    expanded,
    flock,
    read_object,
    write_atomically,
    write_json,
)

# The CPU comes second, as host callbacks need it.
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}
PACKAGES = (
    *("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "flax", "optax"),
    *("orbax-checkpoint", "numpy", "scipy", "torch", "triton"),
)
PROBE = """
import json, jax
first, *_ = devices = jax.devices()
runtime = " ".join(first.client.platform_version.split())
print(json.dumps([first.platform, first.device_kind, len(devices), runtime]))
"""
PATIENCE = 15  # seconds that a job has to end when it is asked to
SHOWN = 80  # lines of a job's output on the page


class Record(NamedTuple):
    """What became of a job."""

    result: str  # passed, failed, or stopped at a limit
    command: list[str]
    seconds: float
    processor_seconds: float
    error: str  # its last lines, '' if it passed
    versions: dict[str, str]  # of the code and of packages


class Plan(NamedTuple):
    """The jobs of a device, and where their outputs are."""

    device: str  # of `PLATFORMS`
    folder: Path

    def jobs(self) -> list[Job]:
        """Returns the jobs that are run on the device."""
        return [job for job in JOBS if self.seconds(job)]

    def seconds(self, job: Job) -> int:
        """Returns the seconds that a job is expected to take, 0 if it is not run."""
        return job.seconds[self.device != "cpu"]

    def trained(self) -> tuple[str, str]:
        """Returns the config to measure, and the job that trains it."""
        small = self.device == "cpu"
        return ("toon_faces:smoke", "toon_faces_smoke") if small else ("toon_faces",) * 2

    def command(self, job: Job) -> list[str]:
        """Returns the arguments of Python."""
        model, run = self.trained()
        text = f"-m {job.command} {job.small if self.device == 'cpu' else ''}"
        names = {"folder": self.folder, "model": model, "run": self.folder / "runs" / run}
        return [part.format(**names) for part in text.split()]

    def lacks(self, job: Job, records: dict[str, Record]) -> str:
        """Returns what a job needs and does not have, '' if nothing."""
        missing = [name for name in job.needs if not importlib.util.find_spec(name)]
        if missing:
            return f"needs the package {missing[0]}"
        run = self.trained()[1]
        waits = "{run}" in job.command and (run not in records or records[run].result != "passed")
        return f"needs what {run} trains" if waits else ""


def environment_of(device: str) -> dict[str, str]:
    """Returns the environment of the jobs on a device."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, **hidden, "JAX_PLATFORMS": PLATFORMS[device]}


def find_device(device: str) -> tuple[str, str]:
    """Returns kind and number of the devices that JAX finds, and the version of their runtime."""
    command = [sys.executable, "-c", PROBE]
    asked = subprocess.run(command, env=environment_of(device), capture_output=True, text=True)
    reason = "it finds a CPU only"
    if asked.returncode:
        reason = last_lines(asked.stderr, 1)[:200]
    else:
        found, kind, count, runtime = json.loads(asked.stdout.splitlines()[-1])
        if found == device:
            return f"{kind} x {count}", runtime
    raise InputError(
        f"--device={device}: JAX cannot use one here ({reason}): install JAX for it"
        " (docs/troubleshooting.md), or use --device=cpu"
    )


def machine() -> str:
    """Returns processor, cores and system."""
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
            return f"{found[1]}, {len(os.sched_getaffinity(0))} cores, {platform.system()}"
    return f"{platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def versions(runtime: str) -> dict[str, str]:
    """Returns the commit and the versions of packages, with that of a device's runtime."""
    found = {"commit": commit(), "python": platform.python_version(), "runtime": runtime}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def differences(before: dict[str, str], now: dict[str, str]) -> str:
    """Returns what was another version before, such as 'jax 0.10.1'."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name, 'missing')}" for name in names)


def clock(seconds: float) -> str:
    """Formats seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def last_lines(text: str, count: int) -> str:
    """Returns the last lines that are not empty."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def run_job(plan: Plan, job: Job, limit: float, now: dict[str, str]) -> Record:
    """Runs a job, for `limit` seconds at most, and writes its files; `now` are the versions."""
    command = plan.command(job)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment_of(plan.device),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # so that Ctrl-C is ours to handle, and all of it can be ended
        )
        try:
            code = process.wait(limit)
            result = "failed" if code else "passed"
        except subprocess.TimeoutExpired:
            result = "stopped"
        finally:
            end(process)
        written = []
        for stream, kind in ((output, "txt"), (errors, "err")):
            stream.seek(0)
            written.append(stream.read())
            write_atomically(plan.folder / f"{job.name}.{kind}", written[-1])
    error = ""
    if result == "failed":
        text = written[1].strip() or written[0]
        error = f"exit code {code}\n{last_lines(text.decode(errors='replace'), 5)}"
    elif result == "stopped":
        error = f"after {limit:.0f} seconds"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Record(result, command, time.monotonic() - started, spent, error, now)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, if it runs, with all that it started, which are in its group."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def page(
    plan: Plan, found: str, now: dict[str, str], records: dict[str, Record], reasons: dict[str, str]
) -> str:
    """Returns the page about the device `found`; `reasons` say why jobs have no record."""
    lines = [
        *(f"# Benchmarks on {found}", "", f"`python -m benchmarks.all --device={plan.device}`,"),
        f"{datetime.date.today()}, {machine()};",
        ", ".join(f"{name} {version}" for name, version in now.items()) + ".",
    ]
    if plan.device == "cpu":
        lines += ["Models and samples are small: this shows that it works, and hardly more."]
    lines += ["", "| job | result | seconds | of processor |", "| --- | --- | ---: | ---: |"]
    for job in plan.jobs():
        if record := records.get(job.name):
            before = differences(record.versions, now)
            result = f"[{record.result}](#{job.name})" + (f", with {before}" if before else "")
            cells = f"{result} | {record.seconds:.0f} | {record.processor_seconds:.0f}"
        else:
            cells = f"not run: {reasons.get(job.name, 'its turn has not come')} | |"
        lines.append(f"| {job.name} | {cells} |")
    lines += ["", "Left out:", ""]
    left_out = {why: [*names] for why, names in LEFT_OUT.items()}
    left_out["not on this kind of device"] = [job.name for job in JOBS if not plan.seconds(job)]
    lines += [f"- {', '.join(names)}: {why}" for why, names in left_out.items() if names]
    for job in plan.jobs():
        if record := records.get(job.name):
            text = (plan.folder / f"{job.name}.txt").read_text(errors="replace").splitlines()
            if len(text) > SHOWN:
                text = [f"... {len(text) - SHOWN} more lines in {job.name}.txt", *text[-SHOWN:]]
            text += [f"{record.result}: {record.error}"] if record.error else []
            lines += ["", f"## {job.name}", "", f"`python {shlex.join(record.command)}`", ""]
            lines += ["````text", *text, "````"]
    return "\n".join(lines) + "\n"


def read_records(plan: Plan, found: str) -> dict[str, Record]:
    """Returns the records of earlier calls whose outputs are still there."""
    path = plan.folder / "jobs.json"
    before = read_object(path)
    if before and before.get("device") != found:
        raise InputError(
            f"{path} is of another device, {before.get('device')}, not of {found}: choose another"
            " --output"
        )
    try:
        records = {name: Record(**values) for name, values in before.get("jobs", {}).items()}
    except TypeError as error:
        raise InputError(f"cannot read {path} ({brief(error)}): choose another --output") from error
    written = {path.stem for path in plan.folder.glob("*.txt")}
    return {name: record for name, record in records.items() if name in written}


def run_jobs(plan: Plan, chosen: list[Job], minutes: float) -> int:
    """Runs jobs and writes the page; returns the exit code."""
    found, runtime = find_device(plan.device)
    now = versions(runtime)
    records, reasons = read_records(plan, found), dict[str, str]()
    todo = []
    for job in chosen:
        record = records.get(job.name)
        if not record or record.result != "passed" or record.command != plan.command(job):
            todo.append(job)
        elif before := differences(record.versions, now):
            made = f"{plan.folder / job.name}.txt"
            if job.command.startswith("pivq_jax.main "):  # which would continue
                made += f" and {plan.folder / 'runs' / job.name}"
            print(f"{job.name} has passed before, with {before}: delete {made} to run it again")

    def write() -> None:
        jobs = {name: record._asdict() for name, record in records.items()}
        write_json(plan.folder / "jobs.json", {"device": found, "jobs": jobs})
        text = page(plan, found, now, records, reasons)
        write_atomically(plan.folder / "index.md", text.encode())

    print(f"{found}: {len(todo)} jobs; {len(chosen) - len(todo)} have passed before", flush=True)
    started = time.monotonic()
    expected = spent = 0.0  # seconds of what is done
    for number, job in enumerate(todo, 1):
        left = started + 60 * minutes - time.monotonic()
        if lacking := plan.lacks(job, records):
            reasons[job.name] = lacking
        elif plan.seconds(job) > left:
            reasons[job.name] = f"too little of --minutes={minutes:g} was left for it"
        else:
            rest = sum(map(plan.seconds, todo[number - 1 :])) * (spent / expected if spent else 1)
            print(
                f"{number}/{len(todo)} {job.name}; about {clock(min(rest, left))} left for all",
                flush=True,
            )
            # None takes the time of all others, but on a slow machine each has more than expected.
            limit = min(left, max(2 * plan.seconds(job), 60 * minutes / 5))
            records[job.name] = record = run_job(plan, job, limit, now)
            expected, spent = expected + plan.seconds(job), spent + record.seconds
            print(f"    {record.result} in {clock(record.seconds)}", flush=True)
            if record.error:
                print(textwrap.indent(record.error, "    "), flush=True)
        if job.name in reasons:
            print(f"{number}/{len(todo)} {job.name} is not run: {reasons[job.name]}", flush=True)
        write()
    write()
    results = [records[job.name].result if job.name in records else "not run" for job in chosen]
    counts = ", ".join(f"{n} {result}" for result, n in collections.Counter(results).items())
    print(f"{counts}; the page is {plan.folder / 'index.md'}")
    return int({*results} != {"passed"})


def main(arguments: list[str]) -> int:
    """Checks the arguments and runs the jobs; returns the exit code."""
    parser = CommandParser(prog="python -m benchmarks.all", description=__doc__)
    parser.add_argument("--device", choices=PLATFORMS, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the page")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all jobs together")
    parser.add_argument("--only", metavar="NAME,...", help="jobs to run; by default all")
    options = parser.parse_args(arguments)
    return resumable_exit_code(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    plan = Plan(options.device, expanded(options.output))
    chosen = {job.name: job for job in plan.jobs()}
    for name in (asked := options.only.split(",") if options.only else [*chosen]):
        if name not in chosen:
            raise InputError(f"--only: no job is named {name!r}: use some of {', '.join(chosen)}")
    if not options.minutes > 0:
        raise InputError(f"--minutes={options.minutes:g}: give more than 0")
    check_directory(plan.folder, "--output")
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = flock(plan.folder)
    except BlockingIOError as error:
        raise InputError(f"another process writes to {plan.folder}: end it first") from error
    except OSError as error:
        raise InputError(f"{error}: choose another --output") from error
    try:
        jobs = [job for name, job in chosen.items() if name in asked]
        return run_jobs(plan, jobs, options.minutes)
    finally:
        if lock is not None:
            os.close(lock)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not ignored, as under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # which ends the job
    sys.exit(main(sys.argv[1:]))
