"""python -m pivq_jax.main --config=configs/toon_faces.py [--mode=train] [--workdir=runs/toon_faces]

Trains PI-VQ, a permutation-invariant vector-quantized autoencoder, and uses trained models.

Modes:
{modes}

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
"""

import os
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import NamedTuple

from absl import app, flags, logging

from pivq_jax.common.command_line import HELP, exit_code, parse_flags, refuse
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path
from pivq_jax.common.hub import check_published, find_pretrained
from pivq_jax.config.fields import all_fields
from pivq_jax.config.loader import define_config_flag


class Mode(NamedTuple):
    """A value of --mode. The function in `modes` of the same name runs it."""

    does: str  # for --help
    needs: tuple[str, ...] = ()  # further flags
    takes: tuple[str, ...] = ()  # flags that other modes may not have, by name
    trains: bool = False  # so that no published model can stand for the workdir


MODES = {
    "train": Mode(
        "train (or continue), then evaluate, sample and interpolate; the default",
        takes=("init_from", "tracker"),
        trains=True,
    ),
    "evaluate": Mode("write metrics.json and report/index.html for the test split"),
    "sample": Mode(
        "write samples.png, new images from the recombined codes of training images, and"
        " parents.png, some of them between their parents; with --output, instead write each"
        " image to a PNG file in that new folder",
        takes=("prior", "output"),
    ),
    "interpolate": Mode("write interpolations.png, paths between images by exchanging codes"),
    "edit": Mode(
        "write edits.png, a face with every value of every labelled factor; with one or more"
        " --set=FACTOR=VALUE, write edits_FACTOR_VALUE.png, test images with these values; with"
        " --input and --output, edit your own images instead",
        takes=("input", "output", "set"),
    ),
    "complete": Mode(
        "write completions_left.png, test images completed where a part is hidden (--hide)",
        takes=("hide",),
    ),
    "reconstruct": Mode(
        "reconstruct every image of --input, and write images and codes to --output",
        needs=("--input=DIR",),
        takes=("input", "output"),
    ),
    "train_prior": Mode(
        "train a prior over the code sets of the training images; with it, --mode=sample --prior"
        " writes prior_samples.png, new images without parents",
        trains=True,
    ),
    "compress": Mode(
        "write the codes of every image of the folder --input to the file --output: 13 bytes an"
        " image for 16 codes of 512, fewer with --code=short, fewest with --code=prior",
        needs=("--input=FOLDER", "--output=FILE"),
        takes=("input", "output", "code"),
    ),
    "decompress": Mode(
        "decode the file --input to PNG files in the new folder --output",
        needs=("--input=FILE", "--output=FOLDER"),
        takes=("input", "output"),
    ),
    "explore": Mode(
        "serve a page to explore and exchange the codes of images, at --address and --port",
        takes=("address", "port"),
    ),
}

# Flags that some modes may not have; each is the field of `modes.Task` of the same name.
OF_MODES = sorted({name for mode in MODES.values() for name in mode.takes})

__doc__ = (__doc__ or "").format(
    modes="\n".join(
        textwrap.fill(
            mode.does,
            width=98,
            initial_indent=f"  {name:12} ",
            subsequent_indent=" " * 15,
            break_on_hyphens=False,
        )
        for name, mode in MODES.items()
    ),
)

_CONFIG = define_config_flag()
_FIELDS = [field.name for field in all_fields()]
_MODE = flags.DEFINE_enum("mode", "train", [*MODES], "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; default runs/<config name>.")
_PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "A published model, used instead of the model of a workdir."
)
flags.DEFINE_string(
    "init_from",
    None,
    "For train: a workdir, a published model or a *.safetensors file, from whose weights a new run"
    " starts.",
)
flags.DEFINE_enum(
    "tracker", None, ("trackio",), "For train: where the log is recorded besides TensorBoard."
)
flags.DEFINE_string(
    "input",
    None,
    "Folder of images for reconstruct, edit and compress; file of codes for decompress.",
)
flags.DEFINE_string(
    "output",
    None,
    "Folder or file written by reconstruct (default <workdir>/reconstructed), edit (default"
    " <workdir>/edited_FACTOR_VALUE), sample, compress and decompress.",
)
_SET = flags.DEFINE_multi_string(
    "set", [], "For edit: a factor and its wanted value, as in --set=hair=bun; may be repeated."
)
flags.DEFINE_enum(
    "hide",
    "left",
    ("left", "right", "upper", "lower", "centre", "patches"),
    "For complete: what is hidden, a half, the centre, or half of all patches.",
)
flags.DEFINE_enum(
    "code",
    "fixed",
    ("fixed", "short", "prior"),
    "For compress. fixed: all images take equally many bytes; short: fewer for frequent codes;"
    " prior: fewer for sets of codes that the model's prior finds likely.",
)
flags.DEFINE_bool(
    "prior", False, "For sample: draw sets from the prior instead of recombining training images."
)
flags.DEFINE_string(
    "address", "127.0.0.1", "Where --mode=explore listens; 0.0.0.0 also for other machines."
)
flags.DEFINE_integer(
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
    remedy = ""
    if MODES[_MODE.value].trains:
        remedy = "; the same command continues from the last checkpoint"
    elif _MODE.value == "evaluate":
        remedy = "; the same command reuses the stages that are finished"
    code = 1  # of an error that is not expected
    try:
        code = exit_code(partial(_run, arguments), remedy)
    finally:
        if _DISTRIBUTED.value:
            from pivq_jax.common.parallel import end_without_others

            end_without_others(code)
    return code


def _run(arguments: list[str]) -> int:
    _check_flags(arguments)
    options = {name: flags.FLAGS[name].value for name in OF_MODES} | {"set": _changes()}
    import jax  # takes seconds, so invalid flags are reported before

    from pivq_jax import modes
    from pivq_jax.common.files import cache_folder, is_remote
    from pivq_jax.common.parallel import join_processes
    from pivq_jax.common.stopping import Interrupted, end_on_sigterm
    from pivq_jax.config.check import check_processes

    logging.set_verbosity(logging.WARNING)
    join_processes(_DISTRIBUTED.value)
    # Later runs reuse compiled programs from a cache.
    if jax.process_count() > 1 and jax.default_backend() == "gpu":
        # They share the tuning of their kernels: one that finds a program in the cache would leave
        # the others waiting for its part.
        jax.config.update("jax_enable_compilation_cache", False)
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("compilation")))
    elif is_remote(os.environ["JAX_COMPILATION_CACHE_DIR"]):  # XLA's own cache needs a local one
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    config = None if _CONFIG.value is None else _CONFIG.value.to_dict()
    task = modes.make_task(
        config,
        _WORKDIR.value or "",
        _PRETRAINED.value,
        training=_MODE.value == "train",
        **{name: value for name, value in options.items() if value is not None},
    )
    where = task.workdir if is_remote(task.workdir) else task.workdir.absolute()
    check_processes(
        task.config,
        mode=_MODE.value,
        workdir=str(where),
        starts_from_weights=bool(task.init_from),
        **{name: getattr(task, name) for name in ("set", "hide", "code", "prior")},
    )
    if not MODES[_MODE.value].trains or jax.process_count() == 1:
        end_on_sigterm()
    try:
        getattr(modes, _MODE.value)(task)
    except Interrupted as interrupted:
        print(interrupted)
        return interrupted.exit_code
    except ModuleNotFoundError as error:  # before any work: what training imports
        remedy = "pip install '.[train,faces]' in a checkout of pivq_jax"
        return refuse(f"{error.name} is not installed: {remedy}")
    return 0


def _check_flags(arguments: list[str]) -> None:
    """Checks that the mode has what it needs, and nothing else is given."""
    mode = MODES[_MODE.value]
    if len(arguments) > 1:
        raise InputError(f"unexpected argument {arguments[1]!r}: flags look like --name=value")
    if _PRETRAINED.value is not None and mode.trains:
        others = ", ".join(name for name, other in MODES.items() if not other.trains)
        raise InputError(
            f"--pretrained opens a trained model: give --mode, one of {others}, or train from its"
            " weights with --init_from"
        )
    for name in OF_MODES:
        if flags.FLAGS[name].present and name not in mode.takes:
            modes = [other for other in MODES if name in MODES[other].takes]
            raise InputError(
                f"--{name} is for --mode={' or '.join(modes)}, not {_MODE.value}: leave it out"
            )
    if not (_CONFIG.value or _PRETRAINED.value or _WORKDIR.value):
        raise InputError(
            "--config is missing: give one such as --config=configs/toon_faces.py, or the --workdir"
            " of a run"
        )
    if not all(flags.FLAGS[flag.strip("-").partition("=")[0]].value for flag in mode.needs):
        raise InputError(f"--mode={_MODE.value} needs {' and '.join(mode.needs)}")


def _changes() -> dict[str, str]:
    """The wanted value by factor of flags such as --set=hair=bun."""
    changes: dict[str, str] = {}
    for change in _SET.value:
        name, equals, value = change.partition("=")
        if not name or not equals or name in changes:
            raise InputError(f"--set={change}: give each factor once, as in --set=hair=bun")
        changes[name] = value
    return changes


def _parse(arguments: list[str]) -> list[str]:
    """Parses flags; fields without --config change that of the run or of the published model."""
    flag_names = [each.partition("=")[0] if each.startswith("-") else "" for each in arguments]
    names = [each.lstrip("-") for each in flag_names]
    fields = any(name.removeprefix("no").startswith("config.") for name in names)
    given = [name for name in ("pretrained", "workdir") if name in names]
    if fields and given and not {"config", *HELP} & {*names}:
        at = names.index(given[0])
        where = arguments[at].partition("=")[2] or "".join(arguments[at + 1 : at + 2])
        arguments = [*arguments]  # those of sys.argv stay as they are

        def add_config() -> int:
            published = given[0] == "pretrained"
            place = find_pretrained(where) if published else as_path(where)
            if published:
                check_published(place)
            if published or (place / "config.json").exists():
                # Its whole path, as its name may be that of an experiment, too.
                place = place.absolute() if isinstance(place, Path) else place
                arguments.insert(1, f"--config={place}/")
            return 0

        if code := exit_code(add_config):
            sys.exit(code)
    return parse_flags(_FIELDS, sys.modules[__name__], arguments)


def run() -> None:
    """Entry point of the command `pivq_jax`."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    run()
