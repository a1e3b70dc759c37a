"""What several benchmarks do: read arguments, open a trained model, draw."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import pivq_jax
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


def has(*modules: str) -> bool:
    """Whether all of the modules are installed."""
    return all(importlib.util.find_spec(module) for module in modules)


def pyplot() -> Any:
    """Returns matplotlib.pyplot, which draws to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
