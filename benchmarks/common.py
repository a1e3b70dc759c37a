"""What several benchmarks do: read arguments, open a trained model, draw."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import pivq_jax
from pivq_jax.common.pictures import Pixels
from pivq_jax.evaluation.reconstruction import mean_lpips
from pivq_jax.inference import TrainedModel


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
    """Returns --output; by default the folder `name` in --workdir or runs."""
    return options.output or (options.workdir or Path("runs")) / name


def lpips_of(made: np.ndarray, images: np.ndarray, batch_size: int) -> float:
    """Mean LPIPS (AlexNet) of pairs of uint8 images [M, H, W, 3], as in an evaluation."""
    batches = (slice(i, i + batch_size) for i in range(0, len(images), batch_size))
    return mean_lpips(((images[rows], made[rows]) for rows in batches), batch_size)


def has(*modules: str) -> bool:
    """Whether all of the modules are installed."""
    return all(importlib.util.find_spec(module) for module in modules)


def pyplot() -> Any:
    """Returns matplotlib.pyplot, which draws to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


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
