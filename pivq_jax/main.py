"""python -m pivq_jax.main --config=configs/toon_faces.py [--mode=train] [--workdir=runs/toon_faces]

Trains PI-VQ, a permutation-invariant vector-quantized autoencoder, and uses trained models.

Modes:
  train        train (or continue), then evaluate, sample and interpolate; the default
  evaluate     write metrics.json and report/index.html for the test split
  sample       write samples.png, new images from the recombined codes of training images, and
               parents.png, some of them between their parents; with --output, instead write each
               image to a PNG file in that new folder
  interpolate  write interpolations.png, paths between images by exchanging codes
  edit         write edits.png, a face with every value of every labelled factor; with one or more
               --set=FACTOR=VALUE, write edits_FACTOR_VALUE.png, test images with these values; with
               --input and --output, edit your own images instead
  complete     write completions_left.png, test images completed where a part is hidden (--hide)
  reconstruct  reconstruct every image of --input, and write images and codes to --output
  train_prior  train a prior over the code sets of the training images; with it, --mode=sample
               --prior writes prior_samples.png, new images without parents

Once a run exists, its --workdir is enough: without --config, that run's fields are used, except
for fields given on the command line.

    python -m pivq_jax.main --workdir=runs/toon_faces                              (continues)
    python -m pivq_jax.main --workdir=runs/toon_faces --mode=sample --config.sample.count=500

With --pretrained=NAME, all modes but train and train_prior use a published model instead of that of
a workdir. Results are written to --workdir, by default the current directory, and their full paths
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

Other commands, each with a --help of its own: python -m pivq_jax.codec and pivq_jax.explore.
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
    "sample": Command(_work("sample"), takes=("prior", "output")),
    "interpolate": Command(_work("interpolate")),
    "edit": Command(_work("edit"), takes=("input", "output", "set")),
    "complete": Command(_work("complete"), takes=("hide",)),
    "reconstruct": Command(_work("reconstruct"), takes=("input", "output"), needs=("--input=DIR",)),
    "train_prior": Command(
        _work("train_prior"),
        trains="prior",
        interrupted="; the same command continues from the last checkpoint",
    ),
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
    flags.DEFINE_string("input", None, "Folder of images to reconstruct or to edit.")
    flags.DEFINE_string(
        "output",
        None,
        "Folder written by reconstruct (default <workdir>/reconstructed), edit (default"
        " <workdir>/edited_FACTOR_VALUE) and sample.",
    )
    flags.DEFINE_multi_string(
        "set", [], "For edit: a factor and its wanted value, as in --set=hair=bun; may be repeated."
    )
    flags.DEFINE_enum(
        "hide",
        "left",
        ("left", "right", "upper", "lower", "centre", "patches"),
        "For complete: what is hidden, a half, the centre, or half of all patches.",
    )
    flags.DEFINE_bool(
        "prior", False, "For sample: draw sets from the prior, instead of recombining images."
    )


def run() -> None:
    """Entry point of the command `pivq_jax`."""
    Program("pivq_jax", sys.modules[__name__], "", MODES, _define_flags).run()


if __name__ == "__main__":
    run()
