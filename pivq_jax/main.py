"""python -m pivq_jax.main --config=configs/toon_faces.py [--mode=train] [--workdir=runs/toon_faces]

Trains PI-VQ, a permutation-invariant vector-quantized autoencoder, and uses trained models.

Modes:
  train        train (or continue), then evaluate, sample and interpolate; the default
  evaluate     write metrics.json and report/index.html for the test split
  sample       write samples.png, new images from the recombined codes of training images,
               and parents.png, some of them between their parents
  interpolate  write interpolations.png, paths between images by exchanging codes
  edit         write edits.png, a face with every value of every labelled factor; with one or more
               --set=FACTOR=VALUE test images changed so, with --input and --output your own ones
  complete     write completions.png, test images of which a part is hidden (--hide), completed
  reconstruct  reconstruct every image of --input, and write images and codes to --output
  train_prior  train a prior over the code sets of the training images; with it,
               --mode=sample --prior writes prior_samples.png, new images without parents
  compress     write the codes of every image of the folder --input to the file --output: 13 bytes
               an image for 16 codes of 512, fewer with --code=short, fewest with --code=prior
  decompress   decode the file --input to PNG files in the new folder --output
  explore      serve a page on localhost to take images apart; --address and --port say where

The last three need no --config, only the --workdir of a run:
  --mode=compress --workdir=runs/toon_faces --input=DIR --output=faces.pivq [--code=short]
  --mode=explore --workdir=runs/toon_faces

With --pretrained=NAME, a published model stands for the workdir of all modes but train and
train_prior, and results are written to --workdir, by default the current directory; --config may
then be left out. NAME is a model of the package (toon_faces), a directory, or the id of one on the
Hugging Face hub:

    python -m pivq_jax.main --pretrained=toon_faces --mode=sample

Fields of the config are changed as in --config.train.steps=1000; variants follow a colon, as in
--config=configs/toon_faces.py:smoke (also :nearest, :positional, or several with commas).
A config is a file or the name of one in the package: `pivq_jax --config=toon_faces`.

Exit codes: 0 success; 2 invalid input, reported before any work; 1 failure (loss not finite, disk
full); 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal, after which the same command
continues from the checkpoint just written.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from pivq_jax.common.command_line import exit_code, parse_flags, refuse
from pivq_jax.config.loader import define_config_flag

MODES = (
    *("train", "evaluate", "sample", "interpolate", "edit", "complete"),
    *("reconstruct", "train_prior"),
    *("compress", "decompress", "explore"),
)
# Modes that only need the workdir of a run.
WITHOUT_CONFIG = ("compress", "decompress", "explore")

_CONFIG = define_config_flag()
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; default runs/<config name>.")
_PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "A published model, used instead of that of a workdir."
)
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "Folder of images for reconstruct, edit and compress; file of codes for decompress.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "What reconstruct (default <workdir>/reconstructed), edit (<workdir>/edited), compress and"
    " decompress write.",
)
_SET = flags.DEFINE_multi_string(
    "set", [], "For edit: a factor and its wanted value, as in --set=hair=bun; may be repeated."
)
_HIDE = flags.DEFINE_enum(
    "hide",
    "left",
    ("left", "right", "upper", "lower", "centre", "patches"),
    "For complete: what is hidden, a half, the centre, or half of all patches.",
)
_CODE = flags.DEFINE_enum(
    "code",
    "fixed",
    ("fixed", "short", "prior"),
    "For compress: all images take equally many bytes; or fewer the more frequent their codes are;"
    " or fewer the more likely the model's prior finds them.",
)
_PRIOR = flags.DEFINE_bool(
    "prior", False, "For sample: draw sets from the prior instead of recombining training images."
)
_ADDRESS = flags.DEFINE_string(
    "address", "127.0.0.1", "Where --mode=explore listens; 0.0.0.0 also for other machines."
)
_PORT = flags.DEFINE_integer(
    "port", 8765, "Port of --mode=explore; 0 for any free one.", lower_bound=0, upper_bound=65_535
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    os.environ.get("PIVQ_DISTRIBUTED", ""),
    "For a run of several processes: auto (TPU slice, Slurm, Open MPI) or ADDRESS:PORT,COUNT,INDEX."
    " Default: $PIVQ_DISTRIBUTED.",
)


def main(arguments: list[str]) -> int:
    """Checks the flags and the config, then runs the mode; returns one of the exit codes above."""
    try:
        if len(arguments) > 1:
            return refuse(f"unexpected argument {arguments[1]!r}: flags look like --name=value")
        if _PRETRAINED.value is not None and _MODE.value in ("train", "train_prior"):
            return refuse(
                "--pretrained is of a trained model: give --mode, one of"
                f" {', '.join(mode for mode in MODES if not mode.startswith('train'))}"
            )
        if _CONFIG.value is None and _PRETRAINED.value is None:
            if _MODE.value not in WITHOUT_CONFIG:
                return refuse(
                    "--config is missing: give one such as --config=configs/toon_faces.py"
                )
            if not _WORKDIR.value:
                return refuse("--workdir is missing: give that of a run, or its --config")
        return exit_code(_run)
    except KeyboardInterrupt:
        if _MODE.value in WITHOUT_CONFIG:
            print("\ninterrupted; nothing was written")
        else:
            print("\ninterrupted; the same command continues from the last checkpoint")
        return 130


def _run() -> int:
    import jax  # takes seconds, so invalid flags are reported before

    try:
        from pivq_jax import modes
    except ModuleNotFoundError as error:
        return refuse(f"{error.name} is not installed: pip install 'pivq_jax[train,faces]'")
    from pivq_jax.common.errors import InputError
    from pivq_jax.common.files import as_path, cache_folder, expanded, is_remote
    from pivq_jax.common.parallel import join_processes
    from pivq_jax.config.check import check_config
    from pivq_jax.config.fields import Config
    from pivq_jax.inference.opening import from_pretrained
    from pivq_jax.training.stopping import Interrupted

    logging.set_verbosity(logging.WARNING)
    # Later runs reuse compiled programs from this cache.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("compilation")))
    mode = _MODE.value
    join_processes(_DISTRIBUTED.value)
    published = None if _PRETRAINED.value is None else from_pretrained(_PRETRAINED.value)
    if _CONFIG.value is not None:
        config = Config.from_dict(_CONFIG.value.to_dict())
    elif published is not None:
        config = published.config
    else:  # `main` has checked that the mode needs none
        _run_with_workdir(None, as_path(_WORKDIR.value or ""), None)
        return 0
    if config.data.path and not is_remote(config.data.path):
        path = os.path.abspath(expanded(config.data.path))
        config = config.with_fields({"data.path": path})
    workdir = as_path(_WORKDIR.value or (f"runs/{config.name}" if published is None else "."))
    check_config(config, training=mode == "train")
    if mode in WITHOUT_CONFIG:
        _run_with_workdir(config, workdir, published)
        return 0
    changes = _changes(_SET.value) if mode == "edit" else {}
    if mode == "reconstruct" or (mode == "edit" and _INPUT.value):
        if not _INPUT.value:
            raise InputError("--mode=reconstruct needs the folder of images: give --input=DIR")
        if mode == "edit" and not changes:
            raise InputError("--input needs what to change: give --set=FACTOR=VALUE")
        folder = "edited" if changes else "reconstructed"
        output = as_path(_OUTPUT.value) if _OUTPUT.value else workdir / folder
        source = expanded(_INPUT.value)
        modes.reconstruct(config, workdir, source, output, published, changes)
        return 0
    try:
        modes.run(mode, config, workdir, published, _PRIOR.value, changes, _HIDE.value)
    except Interrupted as interrupted:
        print(interrupted)
        return interrupted.exit_code
    return 0


def _changes(given: list[str]) -> dict[str, str]:
    """The wanted value by factor of flags such as 'hair=bun'."""
    from pivq_jax.common.errors import InputError

    changes = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals or name in changes:
            raise InputError(f"--set={each}: give each factor once, as in --set=hair=bun")
        changes[name] = value
    return changes


def _run_with_workdir(config: Any, workdir: Path, published: Any) -> None:
    """Runs a mode of `WITHOUT_CONFIG`; config and published model may be None for the workdir's."""
    from pivq_jax import modes
    from pivq_jax.common.errors import InputError
    from pivq_jax.common.files import as_path, local_path

    mode = _MODE.value
    if mode == "explore":
        modes.explore(config, workdir, _ADDRESS.value, _PORT.value, published)
        return
    if not _INPUT.value or not _OUTPUT.value:
        given = "--input=FOLDER and --output=FILE"
        if mode == "decompress":
            given = "--input=FILE and --output=FOLDER"
        raise InputError(f"--mode={mode} needs {given}")
    if mode == "compress":
        source, target = local_path(_INPUT.value), as_path(_OUTPUT.value)
        modes.compress(config, workdir, source, target, _CODE.value, published)
    else:
        source, target = as_path(_INPUT.value), local_path(_OUTPUT.value)
        modes.decompress(config, workdir, source, target, published)


def run() -> None:
    """Entry point of the command `pivq_jax`."""
    app.run(main, flags_parser=partial(parse_flags, _CONFIG, sys.modules[__name__]))


if __name__ == "__main__":
    run()
