"""The parts of a run, whether its metrics are finite, and what it makes of validation images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pivq_jax.common.files import outlive_bucket
from pivq_jax.common.lock import DirectoryLock
from pivq_jax.common.parallel import replicated, split_rows
from pivq_jax.common.pictures import magnification, reconstruction_grid, save_png
from pivq_jax.common.weights import Params
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import first_images
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.objective import Phase
from pivq_jax.training.steps import Arrays, Steps, TrainState

Evaluation = tuple[dict[str, float], dict[str, np.ndarray]]  # figures and pictures, by name

# A run stops if one of these is not finite.
CHECKED = ("loss", "gradient_norm", "discriminator_gradient_norm", "latent_norm")


class Evaluator(Protocol):
    """Measures weights; `evaluation.evaluator` has that of the command."""

    images: int  # number of validation images that it wants, at least 1

    def __call__(
        self,
        dataset: Dataset,
        mesh: Mesh,
        step: int,
        params: Params | None,
        originals: np.ndarray,
        reconstructions: np.ndarray,
    ) -> Evaluation:
        """Measures the averaged parameters after `step` steps; all processes call it alike.

        Validation images and their reconstructions are uint8 [M, H, W, 3]. Before the codebook's
        start, reconstructions are not quantized and `params`, else on every device, are None.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The constants of a run."""

    config: Config
    workdir: Path
    dataset: Dataset
    mesh: Mesh
    steps: Steps
    lpips_weights: Params | None  # weights of the perceptual network, None if it is not used
    checkpoints: Checkpoints
    lock: DirectoryLock
    evaluator: Evaluator | None
    initial: Arrays | None  # parameters that are not random at first


def check_finite(run: Run, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """Waits for metrics and returns them; FloatingPointError if one of `CHECKED` is not finite.

    Gradients are checked as well, since the loss belongs to the weights before the step.
    """
    values = {name: float(value) for name, value in metrics.items()}
    rates = ["optimizer.learning_rate"]
    if run.config.optimizer.name == "muon":
        rates.append("optimizer.muon_learning_rate")
    if "discriminator_gradient_norm" in metrics:
        rates.append("adversarial.learning_rate")
    for name in CHECKED:
        if not np.isfinite(value := values.get(name, 0.0)):
            last = run.checkpoints.latest_step()
            raise FloatingPointError(
                f"the {name} is {value} at step {step}: lower {' or '.join(rates)}, in a new"
                " --workdir; "
                + (f"the last good checkpoint is that of step {last}" if last else "none was saved")
            )
    return values


def save_picture(run: Run, state: TrainState, step: int, phase: Phase) -> None:
    """Writes a picture of validation images above their reconstructions."""
    originals, reconstructions = reconstruct_validation(run, state, phase)
    if jax.process_index() == 0:
        scale = magnification(run.dataset.image_size)
        picture = reconstruction_grid(originals[:16], reconstructions[:16], scale=scale)
        path = run.workdir / "pictures" / f"step_{step:06}.png"
        with outlive_bucket(path):
            save_png(path, picture)


def evaluate(run: Run, state: TrainState, step: int, phase: Phase) -> Evaluation:
    """Measures the averaged weights."""
    assert run.evaluator
    originals, reconstructions = reconstruct_validation(run, state, phase, run.evaluator.images)
    params = None
    if phase > Phase.CONTINUOUS:
        params = jax.device_put(state.ema_params, replicated(run.mesh))
    return run.evaluator(run.dataset, run.mesh, step, params, originals, reconstructions)


def reconstruct_validation(
    run: Run, state: TrainState, phase: Phase, most: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The first validation images, at most `most`, and their reconstructions by averaged weights.

    Both are uint8 [n, H, W, 3]. All processes must take part, and each gets all images.
    """
    batch_size = run.config.train.batch_size
    validation = first_images(run.dataset.validation, most or batch_size)
    originals, reconstructions = [], []
    for batch in eval_batches(validation, batch_size):
        images = split_rows(jnp.asarray(batch["image"]), run.mesh)
        rebuilt = run.steps.reconstruct(state.ema_params, images, phase > Phase.CONTINUOUS)
        originals.append(batch["image"])
        reconstructions.append(jax.device_get(rebuilt))
    count = len(validation)  # further rows are padding
    return np.concatenate(originals)[:count], np.concatenate(reconstructions)[:count]
