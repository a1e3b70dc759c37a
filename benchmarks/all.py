"""Runs the benchmarks on a device, one after another, and writes one page about them.

    python -m benchmarks.all --device=gpu --output=DIR [--minutes=60] [--only=NAME,...]

Each job is a process of its own; those that tell most about a device come first. On a CPU, models
and samples are small (half an hour on one core), which shows that all works, and hardly more.
--device=gpu needs JAX with CUDA and, for the comparison, PyTorch with CUDA.

Writes to DIR: index.md, the page, and NAME.txt, the output of each job that has passed, NAME.err of
one that has not. What has passed is not repeated, so the same command goes on after a stop; delete
NAME.txt, and runs/NAME of a training, to run it again. Exit codes: 0 all passed; 1 some did not.
"""

import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import commit, default_device, parser_for
from pivq_jax.common.command_line import exit_code
from pivq_jax.common.files import write_atomically

# The CPU comes second, as host callbacks need it.
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}
SHOWN = 80  # lines of a job's output on the page


class Job(NamedTuple):
    """A program to run."""

    name: str
    command: str  # what follows `python -m`
    small: str = ""  # more options on a CPU
    cpu: bool = True  # whether it is run there


# {folder} is the one of all outputs, {model} the config to measure, {run} a run of it.
SMOKE = "pivq_jax.main --config={0}:smoke --workdir={{folder}}/runs/{0}_smoke"
NOISE = " --config.data.name=random --config.evaluate.images=50"
FACES = "--pretrained=toon_faces"
JOBS = (
    Job("matching", "benchmarks.matching --quick --output={folder}/matching"),
    Job("versus_torch", "benchmarks.versus_torch --config={model}", "--turns=1 --no-compile"),
    Job("toon_faces_smoke", SMOKE.format("toon_faces")),
    Job(
        "toon_faces",
        "pivq_jax.main --config=toon_faces --workdir={folder}/runs/toon_faces",
        "",
        False,
    ),
    Job(
        "training_step",
        "benchmarks.training_step --workdir={run} --methods=auto,greedy",
        "--repeats=5",
    ),
    Job("faces_smoke", SMOKE.format("faces") + NOISE),
    Job("ffhq_smoke", SMOKE.format("ffhq") + NOISE),
    Job("prdc", "benchmarks.prdc", "--images=1000 --features=512"),
    Job(
        "input_pipeline",
        "benchmarks.input_pipeline --config={model}",
        "--workers=0,1 --sizes=64 --images=64 --seconds=1",
    ),
    Job("recombination", "benchmarks.recombination", "--sizes=16:512 --images=8"),
    Job("place_free", "benchmarks.place_free --workdir={run}", "--images=8"),
    Job(
        "completion", f"benchmarks.completion {FACES} --output={{folder}}/completion", "--images=20"
    ),
    Job("prior", f"benchmarks.prior {FACES} --output={{folder}}/prior", "--samples=50"),
    Job(
        "compression",
        f"benchmarks.compression {FACES} --only-ours --output={{folder}}/compression",
        "--images=100",
    ),
    Job("edits", f"benchmarks.edits {FACES} --output={{folder}}/edits", "", False),
    Job(
        "explore_factors",
        f"benchmarks.explore_factors {FACES} --output={{folder}}/edits",
        "",
        False,
    ),
)


def command_of(job: Job, device: str, folder: Path) -> list[str]:
    """Returns the arguments of Python for a job on a device."""
    small = device == "cpu"
    names = ("toon_faces:smoke", "toon_faces_smoke") if small else ("toon_faces", "toon_faces")
    given = {"folder": folder, "model": names[0], "run": folder / "runs" / names[1]}
    text = f"-m {job.command} {job.small if small else ''}"
    return [part.format(**given) for part in text.split()]


def run_job(job: Job, device: str, folder: Path, limit: float, environment: dict[str, str]) -> bool:
    """Runs a job for `limit` seconds at most and writes its output; returns whether it passed."""
    command, started = command_of(job, device, folder), time.monotonic()
    with (folder / f"{job.name}.err").open("w+b") as output:
        try:
            done = subprocess.run(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit,
            )
            result = f"exit code {done.returncode}" if done.returncode else "passed"
        except subprocess.TimeoutExpired:
            result = "stopped"
    head = f"{result} in {time.monotonic() - started:.0f} s, commit {commit()}\n"
    head += f"python {shlex.join(command)}\n\n"
    path = folder / f"{job.name}.err"
    written = head.encode() + path.read_bytes()
    write_atomically(path.with_suffix(".txt") if result == "passed" else path, written)
    if result == "passed":
        path.unlink()
    print(f"{job.name}: {head.splitlines()[0]}", flush=True)
    return result == "passed"


def page(jobs: list[Job], title: str, folder: Path) -> str:
    """Returns the page: a table of the jobs, then the last lines of their outputs."""
    lines, parts = ["| job | result |", "| --- | --- |"], []
    for job in jobs:
        paths = [path for end in ("txt", "err") if (path := folder / f"{job.name}.{end}").exists()]
        text = paths[0].read_text(errors="replace").splitlines() if paths else ["not run"]
        lines.append(f"| {job.name} | {text[0]} |")
        shown = text[1:] if len(text) <= SHOWN else [text[1], "...", *text[-SHOWN:]]
        parts += ["", f"## {job.name}", "", "````text", *shown, "````"] if paths else []
    return "\n".join([title, "", *lines, *parts]) + "\n"


def main() -> int:
    """Runs the jobs that have not passed and writes the page; returns the exit code."""
    parser = parser_for(__doc__)
    parser.add_argument("--device", choices=PLATFORMS, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the page")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all jobs together")
    parser.add_argument("--only", metavar="NAME,...", help="jobs to run; by default all")
    options = parser.parse_args()
    jobs = [job for job in JOBS if job.cpu or options.device != "cpu"]
    chosen = options.only.split(",") if options.only else [job.name for job in jobs]
    if unknown := {*chosen} - {job.name for job in jobs}:
        parser.error(f"--only: no job is named {min(unknown)!r}")
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}
    environment = {**os.environ, **hidden, "JAX_PLATFORMS": PLATFORMS[options.device]}
    found, kind = default_device(environment)
    if found != options.device:
        parser.error(
            f"--device={options.device}: JAX finds a {found} here (docs/troubleshooting.md)"
        )
    options.output.mkdir(parents=True, exist_ok=True)
    title = f"# Benchmarks on {kind}\n\n`--device={options.device}`, {platform.processor()},"
    title += f" {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    end, passed = time.monotonic() + 60 * options.minutes, True
    for job in (job for job in jobs if job.name in chosen):
        if not (options.output / f"{job.name}.txt").exists():
            left = end - time.monotonic()
            passed &= left > 0 and run_job(job, options.device, options.output, left, environment)
        text = page(jobs, title, options.output)
        write_atomically(options.output / "index.md", text.encode())
    print(f"the page is {options.output / 'index.md'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(exit_code(main, "; the same command continues"))
