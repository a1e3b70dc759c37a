"""What several benchmarks do: read arguments, open a model, time, format."""

import argparse
import contextlib
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pivq_jax
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.reconstruction import mean_lpips
from pivq_jax.inference import TrainedModel, images_of

WARM_UP = 2  # rounds of calls that are not timed: the first ones compile
LEAST_REPEATS = 3


def parser_for(text: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is the text of a benchmark."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=text, formatter_class=form)


def add_model(parser: argparse.ArgumentParser, output: str = "") -> None:
    """Adds --workdir and --pretrained, of which one must be given; see `open_model`.

    Also --output, if its default has a name; see `output_of`.
    """
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=Path, help="a finished run")
    which.add_argument("--pretrained", help="a published model")
    if output:
        where = f"default <workdir>/{output} or runs/{output}/<model>"
        parser.add_argument("--output", type=Path, help=where)


def open_model(options: argparse.Namespace) -> TrainedModel:
    """Opens the model that the options name."""
    if options.pretrained:
        return pivq_jax.from_pretrained(options.pretrained)
    return pivq_jax.load(options.workdir)


def output_of(options: argparse.Namespace, name: str) -> Path:
    """Returns --output; by default the folder `name` in --workdir, or in runs that of a model."""
    if options.output:
        return options.output
    if options.workdir:
        return options.workdir / name
    return Path("runs") / name / options.pretrained.replace("/", "_")


def commit() -> str:
    """Returns the commit of this checkout, "unknown" without git; `-dirty` if it was changed."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.check_output(git, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def default_device(environment: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Returns platform and name of the device that JAX uses, determined in a separate process."""
    question = "import jax; device = jax.devices()[0]; print(device.platform, device.device_kind)"
    asked = subprocess.check_output([sys.executable, "-c", question], env=environment, text=True)
    platform, kind = asked.splitlines()[-1].split(maxsplit=1)
    return platform, kind


def pixels_of(source: Source) -> np.ndarray:
    """Returns all images of a split, uint8 [M, H, W, 3]."""
    return images_of(source, range(len(source)))


def lpips_of(made: np.ndarray, images: np.ndarray, batch_size: int) -> float:
    """Mean LPIPS (AlexNet) of pairs of uint8 images [M, H, W, 3], as in an evaluation."""
    batches = (slice(i, i + batch_size) for i in range(0, len(images), batch_size))
    return mean_lpips(((images[rows], made[rows]) for rows in batches), batch_size)


def milliseconds_in_turns(
    calls: Mapping[str, Callable[[], Any]], repeats: int, budget: float = math.inf
) -> dict[str, float]:
    """Calls functions in turns, after `WARM_UP`; returns the median time of each.

    One that has taken more than `budget` seconds, in at least `LEAST_REPEATS` calls, is left out.
    """
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if len(times[name]) < LEAST_REPEATS or sum(times[name]) <= 1e3 * budget:
                started = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(taken) for name, taken in times.items()}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]] = (), texts: int = 1) -> str:
    """Formats a table as Markdown, of whose columns the first `texts` are no numbers."""
    marks = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def spread(values: Sequence[float], digits: int) -> str:
    """Formats the mean of values and, if there are several, their standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Opens Debian's chromium, or playwright's own, driven by it (requirements-test.txt)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield browser
        browser.close()
