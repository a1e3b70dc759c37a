"""python -m pivq_jax.main --config=configs/toon_faces.py [--mode=train] [--workdir=runs/toon_faces]

Trains PI-VQ, a permutation-invariant vector-quantized autoencoder, and uses trained models.

Modes:
  train        train (or continue), then evaluate, sample and interpolate; the default
  evaluate     write metrics.json and report/index.html for the test split
  sample       write samples.png, new images from the recombined codes of training images, and
               parents.png, some of them between their parents; with --output, instead write each
               image to a PNG file in that new folder
  interpolate  write interpolations.png, paths between images by exchanging codes
  reconstruct  reconstruct every image of --input, and write images and codes to --output

Once a run exists, its --workdir is enough: without --config, that run's fields are used, except
for fields given on the command line.

    python -m pivq_jax.main --workdir=runs/toon_faces                              (continues)
    python -m pivq_jax.main --workdir=runs/toon_faces --mode=sample --config.sample.count=500

With --pretrained=NAME, all modes but train use a published model instead of that of a workdir.
Results are written to --workdir, by default the current directory, and their full paths
are printed. NAME is a model of the package (toon_faces), a directory, or the id of a model on the
Hugging Face hub:

    python -m pivq_jax.main --pretrained=toon_faces --mode=sample

With --init_from=SOURCE, a new run starts from the weights of a workdir, a published model or a
*.safetensors file: arrays that fit are taken, others are listed. To continue a finished run, repeat
its command with a larger --config.train.steps. With --tracker=trackio, trackio also gets the log.

Fields of the config are changed as in --config.train.steps=1000; variants follow a colon, as in
--config=configs/toon_faces.py:smoke (also :nearest, :positional, or several with commas).
--config takes a file, the name of a config in the package (`pivq_jax --config=toon_faces`) or, for
a new run with the same fields, the workdir of a run or the directory of a published model.

Exit codes: 0 success; 2 invalid input, reported before any work; 1 failure (loss not finite, disk
full); 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal, after which the same command
continues from the checkpoint just written.

Other commands, each with a --help of its own: python -m pivq_jax.explore;
pivq_jax.edits edit and complete; pivq_jax.prior train, sample and evaluate; pivq_jax.codec compress
and decompress.
"""

import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from pivq_jax.commands.program import Command, Program


def _work(mode: str) -> Callable[..., None]:
    """Returns the function of `modes` of this name, which is imported when it is called."""

    def work(*arguments: Any, **options: Any) -> None:
        from pivq_jax import modes  # imports jax: slow

        getattr(modes, mode)(*arguments, **options)

    return work


MODES = {
    "train": Command(
        _work("train"),
        takes=("init_from", "tracker"),
        trains="model",
        interrupted="; the same command continues from the last checkpoint",
    ),
    "evaluate": Command(
        _work("evaluate"), interrupted="; the same command reuses the stages that are finished"
    ),
    "sample": Command(_work("sample"), takes=("output",)),
    "interpolate": Command(_work("interpolate")),
    "reconstruct": Command(_work("reconstruct"), takes=("input", "output"), needs=("--input=DIR",)),
}


def _define_flags() -> None:
    flags.DEFINE_enum("mode", "train", [*MODES], "What to do.")
    flags.DEFINE_string(
        "init_from",
        None,
        "For train: a workdir, a published model or a *.safetensors file, from whose weights a new"
        " run starts.",
    )
    flags.DEFINE_enum(
        "tracker", None, ("trackio",), "For train: where the log is recorded besides TensorBoard."
    )
    flags.DEFINE_string("input", None, "Folder of images to reconstruct.")
    flags.DEFINE_string(
        "output",
        None,
        "Folder written by reconstruct (default <workdir>/reconstructed) and sample.",
    )


def run() -> None:
    """Entry point of the command `pivq_jax`."""
    Program("pivq_jax", sys.modules[__name__], MODES, _define_flags, about="").run()


if __name__ == "__main__":
    run()
