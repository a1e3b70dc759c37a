"""python -m pivq_jax.convert --from=WORKDIR --to=DIR, to and from model.safetensors

Publishes a trained run as a directory for pivq_jax.from_pretrained and --pretrained. It holds the
averaged weights, a model card, the prior if there is one, and the codes of the first 10,000 images
for training (8,192 where an image has 2,048 codes, 4,096 where it has 4,096), from which new images
are made; the run's data must be there for this. --push uploads that directory, or one made before,
to the Hugging Face hub (pip install huggingface_hub; hf auth login).

    python -m pivq_jax.convert --from=runs/toon_faces --to=published/toon_faces
    python -m pivq_jax.convert --from=published/toon_faces --push=OWNER/NAME

Also converts a run to a safetensors file, with its averaged weights under PyTorch's names and in
PyTorch's layouts and with its config in the metadata. Converts such a file to a workdir, which
every mode of pivq_jax.main and pivq_jax.load can open.

    python -m pivq_jax.convert --from=runs/toon_faces --to=toon_faces.safetensors
    python -m pivq_jax.convert --from=toon_faces.safetensors --to=runs/from_torch

A published model, or one of the package by its name (--from=toon_faces), becomes such a file, too,
or a published model in another directory.

A file written by PyTorch needs the config in its metadata:

    description = {"config": json.load(open("runs/toon_faces/config.json"))}
    safetensors.torch.save_file(model.state_dict(), path, {"pivq_jax": json.dumps(description)})

All input is checked before anything is written, and existing workdirs are never changed.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.common import files, hub
from pivq_jax.common.command_line import CommandParser, exit_code
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import make_mesh
from pivq_jax.inference import POOL_IMAGES, with_parents
from pivq_jax.inference.opening import data_of, from_pretrained, load
from pivq_jax.interop import pretrained
from pivq_jax.interop.safetensors_file import config_of_run, pack_model, read_model
from pivq_jax.training.checkpoints import Checkpoints, check_place
from pivq_jax.training.steps import Steps


def publish(workdir: Path, directory: Path, data_path: str = "") -> None:
    """Writes the newest checkpoint's averaged weights as a published model with its parents.

    These are the first `POOL_IMAGES` training images, those of the run's own samples, or as many as
    a published model may have, with their labels. For `data_path` see `data_of`.
    """
    pretrained.check_target(directory)
    model = load(workdir)
    dataset = data_of(model, data_path)
    count = min(POOL_IMAGES, pretrained.MOST_CODES // model.space.num_codes)
    images = dataset.first(count).train
    with_parents(model, images, dataset.factors).save_pretrained(directory)


def workdir_from_file(path: Path, workdir: Path) -> None:
    """Writes a new workdir with a checkpoint of a file's weights, which are also the averages.

    A codebook that training would replace is refused, unless it was just fitted to the latents.
    """
    check_place(workdir, "--to")
    files.check_new_folder(workdir, "--to")
    arrays, description = read_model(path)
    config = config_of_run(description, path)
    step, mesh, params = description["step"], make_mesh(), jax.device_put(arrays)
    fitted = description["progress"].get("codebook") == "fitted"
    if step <= (start := config.init_step) and not fitted:
        raise InputError(
            f"{path} is of step {step}, but training makes its codebook at step {start}, over"
            ' the one in the file: leave "step" out of its metadata for the last step'
        )
    state = Steps(config, mesh).create()
    state = state.replace(
        step=jnp.int32(step),
        params=params,
        ema_params=params,
        # The schedule of the learning rate uses the optimizer's count of steps.
        opt_state=jax.tree.map(
            lambda x: jnp.full_like(x, step) if x.ndim == 0 else x, state.opt_state
        ),
    )
    with files.new_folder(workdir) as folder:
        files.write_json(folder / "config.json", config.to_dict())
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(step, state, description["progress"])


def main(arguments: list[str] | None = None) -> int:
    """Runs the conversion given by the command line and returns the exit code."""
    parser = CommandParser(prog="python -m pivq_jax.convert", description=__doc__)
    add: Any = parser.add_argument
    add(
        "--from",
        dest="source",
        required=True,
        help="a workdir, published model, model of the package or *.safetensors",
    )
    add(
        "--to",
        dest="target",
        help="a directory or *.safetensors; from *.safetensors, a new workdir",
    )
    add("--push", metavar="OWNER/NAME", help="upload the published model to the hub")
    add("--data_path", default="", metavar="DIR", help="the run's data, if it is elsewhere now")
    options = parser.parse_args(arguments)
    if not options.target and not options.push:
        parser.error("give --to=TARGET or --push=OWNER/NAME")
    return exit_code(partial(_convert, options))


def _convert(options: argparse.Namespace) -> int:
    target = files.local_path(options.target or options.source)
    to_file = target.suffix == ".safetensors"
    from_file = options.source.endswith(".safetensors") or files.expanded(options.source).is_file()
    source = files.local_path(options.source) if from_file else files.as_path(options.source)
    if not from_file and not source.is_dir():
        source = hub.shipped_models().get(options.source, source)
    from_run = source.is_dir() and not hub.is_published(source)
    if options.push:
        hub.check_upload(options.push)
        if from_file or to_file:
            raise InputError(
                "--push uploads a published model: give --from=WORKDIR with --to=DIR, or the DIR of"
                " one as --from"
            )
    no_run = not from_run and source.is_dir()
    no_images = not options.target or to_file or from_file or no_run
    if options.data_path and no_images:
        raise InputError("--data_path is for a run whose training images are read: leave it out")
    if options.target:
        if from_file and not to_file:
            workdir_from_file(source, target)
        elif not source.is_dir():
            names = ", ".join(hub.shipped_models())
            raise InputError(
                f"{source} is no workdir, no published model and no model of the package ({names}):"
                " give one of these as --from"
            )
        elif to_file:
            model = load(source) if from_run else from_pretrained(source)
            files.write_atomically(target, pack_model(model.params, model.description))
        elif from_run:
            publish(source, target, options.data_path)
        else:
            pretrained.write_pretrained(target, pretrained.read_pretrained(source))
        print(f"{target} holds the model of {options.source}")
    if options.push:
        published = target if options.target else source
        pretrained.read_pretrained(published)  # nothing damaged is published
        print(f"uploaded to {hub.upload(published, options.push)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
