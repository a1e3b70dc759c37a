"""What several benchmarks do: read arguments, open a model, train, time, format and draw."""

import argparse
import contextlib
import http.server
import importlib.util
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import pivq_jax
from pivq_jax.common.parallel import put_batch
from pivq_jax.common.pictures import Pixels
from pivq_jax.config import Config
from pivq_jax.data.pipeline import train_batches
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.reconstruction import mean_lpips
from pivq_jax.inference import TrainedModel, images_of

WARM_UP = 2  # rounds of calls that are not timed: the first ones compile


def parser_for(text: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is the text of a benchmark."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=text, formatter_class=form)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --workdir and --pretrained, of which one must be given; see `open_model`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=Path, help="a finished run")
    which.add_argument("--pretrained", help="a published model")


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


def pixels_of(source: Source) -> np.ndarray:
    """Returns all images of a split, uint8 [M, H, W, 3]."""
    return images_of(source, range(len(source)))


def lpips_of(made: np.ndarray, images: np.ndarray, batch_size: int) -> float:
    """Mean LPIPS (AlexNet) of pairs of uint8 images [M, H, W, 3], as in an evaluation."""
    batches = (slice(i, i + batch_size) for i in range(0, len(images), batch_size))
    return mean_lpips(((images[rows], made[rows]) for rows in batches), batch_size)


def training_images(
    config: Config, source: Source, mesh: jax.sharding.Mesh, seed: int
) -> Iterator[jax.Array]:
    """Starts the batches of a training without end, uint8 [B, H, W, 3] on its devices."""
    batch_size, flip = config.train.batch_size, config.data.flip
    batches = train_batches(source, batch_size=batch_size, seed=seed, flip=flip)
    return (put_batch(batch["image"], mesh) for batch in batches)


def milliseconds_in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Calls functions in turns, after `WARM_UP`; returns the median time of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP + repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]] = (), texts: int = 1) -> str:
    """Formats a table as Markdown, of whose columns the first `texts` are no numbers."""
    marks = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(markdown_row(cells) for cells in (head, marks, *rows))


def markdown_row(cells: Sequence[str]) -> str:
    """Formats a row of a table, for those that are printed one by one."""
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int) -> str:
    """Formats the mean of values and, if there are several, their standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def has(*modules: str) -> bool:
    """Whether all of the modules are installed."""
    return all(importlib.util.find_spec(module) for module in modules)


def pyplot() -> Any:
    """Returns matplotlib.pyplot, which draws to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure of `pyplot` as PNG."""
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


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


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Prints nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves the files of a folder on localhost; yields its address."""
    handler = partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def labelled(picture: Pixels, columns: Sequence[str], rows: Sequence[str] = ()) -> Pixels:
    """Writes names above the columns of a picture, uint8 [H, W, 3], and to the left of its rows.

    Columns are equally wide and rows equally high; an empty name leaves a place unnamed.
    """
    pixels = np.asarray(picture)
    font = ImageFont.load_default(size=14)
    height, width, _ = pixels.shape
    left = max((int(font.getlength(name)) + 12 for name in rows), default=0)
    top = 24 if any(columns) else 0
    canvas = Image.new("RGB", (left + width, top + height), "white")
    canvas.paste(Image.fromarray(pixels), (left, top))
    draw = ImageDraw.Draw(canvas)
    for index, name in enumerate(columns):
        place = (left + (index + 0.5) * width / len(columns), top / 2)
        draw.text(place, name, "black", font, anchor="mm")
    for index, name in enumerate(rows):
        draw.text((6, top + (index + 0.5) * height / len(rows)), name, "black", font, anchor="lm")
    return np.asarray(canvas)
