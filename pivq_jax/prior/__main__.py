"""python -m pivq_jax.prior train|sample|evaluate --workdir=runs/toon_faces

  train     train a prior over the code sets of the training images of a run
  sample    write prior_samples.png, new images without parents; with --output, instead write each
            image to a PNG file in that new folder
  evaluate  write the report of the model, with a section on its prior

    python -m pivq_jax.prior train --workdir=runs/toon_faces
    python -m pivq_jax.prior sample --pretrained=toon_faces --config.sample.temperature=0.8

The same command continues a training that was interrupted.
"""

import sys

import numpy as np
from absl import flags

from pivq_jax.commands.program import Command, Program
from pivq_jax.commands.task import Task, open_model
from pivq_jax.common import pictures
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import print_once
from pivq_jax.common.params import checksum
from pivq_jax.data import Dataset
from pivq_jax.evaluation import stages
from pivq_jax.evaluation.report import Stage, evaluate_model
from pivq_jax.evaluation.session import Session, check_weights
from pivq_jax.inference import TrainedModel, encode_split
from pivq_jax.inference.opening import warn_of_other_data
from pivq_jax.inference.saved_prior import PRIOR
from pivq_jax.prior.report import describe_prior, draw_sets, known_sets
from pivq_jax.prior.training import train_prior
from pivq_jax.sampling import Prior
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import check_place


def train(task: Task) -> None:
    """Trains the prior over the sets of the training images and writes it to the workdir."""
    model, config = open_model(task), task.config
    if not model.space.distinct:
        raise InputError(f"the prior is one over sets, and {model.space.kind} codes are none")
    check_place(task.workdir)
    session = Session(model, dataset_from_config(config), task.workdir)
    warn_of_other_data(model, session.whole)
    mirrored = " and their mirror images" if config.data.flip else ""
    print_once(f"encoding {len(session.pool):,} training images{mirrored}")
    fitted = train_prior(
        config.prior,
        model.space,
        model.codebook,
        known_sets(session),
        encode_split(model, session.dataset.validation),
        directory=session.workdir / PRIOR,
        seed=config.seed,
        model_step=model.step,
        data=session.dataset.identity,
    )
    print_once(
        f"the prior is in {session.workdir / PRIOR}: {fitted.bits:.1f} bits a validation set"
    )


def sample(task: Task, output: str = "") -> None:
    """Writes new images of sets that are drawn from the prior: a grid, or a file each."""
    settings, data = task.config.sample, task.config.data
    target = stages.folder_for_samples(settings.count, output)
    model = open_model(task, writes=not output)
    _prior_of(model)
    no_images = Dataset(data.name, data.image_size, [], [], [], {})
    session = Session(model, no_images, task.workdir)

    def draw(session: Session, count: int, start: int) -> np.ndarray:
        return draw_sets(session, count, settings.temperature, start)

    if target:
        stages.write_samples(session, target, draw)
    else:
        images = session.decode(draw(session, settings.count, 0))
        session.write("prior_samples.png", pictures.grid(images, 8))


def evaluate(task: Task) -> None:
    """Writes `metrics.json` and `report/` for the test split, the prior among them."""
    check_weights(task.config)
    model = open_model(task)
    stage = Stage(describe_prior, {"prior": checksum(_prior_of(model).params)})
    session = Session(model, dataset_from_config(task.config), task.workdir)
    evaluate_model(session, {"prior": stage})


def _prior_of(model: TrainedModel) -> Prior:
    if model.prior is None:
        raise InputError("the model has no prior: train one with python -m pivq_jax.prior train")
    return model.prior


COMMANDS = {
    "train": Command(
        train, trains="prior", interrupted="; the same command continues from the last checkpoint"
    ),
    "sample": Command(sample, takes=("output",)),
    "evaluate": Command(
        evaluate, interrupted="; the same command reuses the stages that are finished"
    ),
}


def _define_flags() -> None:
    flags.DEFINE_string("output", None, "For sample: a new folder for a PNG file of each image.")


def run() -> None:
    """Runs the command."""
    name = "python -m pivq_jax.prior"
    Program(name, sys.modules[__name__], COMMANDS, _define_flags).run()


if __name__ == "__main__":
    run()
