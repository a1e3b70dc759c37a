"""The loop: build, restore, step, log, checkpoint."""

import contextlib
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_json
from pivq_jax.common.parallel import make_mesh, put_batch, replicated, say
from pivq_jax.common.pictures import reconstruction_grid, save_png
from pivq_jax.config.check import check_workdir
from pivq_jax.data import Dataset, load_dataset
from pivq_jax.data.pipeline import eval_batches, train_batches
from pivq_jax.losses.perceptual import lpips
from pivq_jax.losses.perceptual_weights import load_lpips
from pivq_jax.losses.reconstruction import psnr
from pivq_jax.model.discriminator import Discriminator
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.training.adversary import Adversary
from pivq_jax.training.checkpoints import SCORE, Checkpoints
from pivq_jax.training.logs import ProfilerTrace, TrainingLog, format_duration
from pivq_jax.training.objective import LossWeights, Objective, Phase
from pivq_jax.training.optimizer import make_optimizer
from pivq_jax.training.steps import (
    Steps,
    TrainState,
    make_discriminator_optimizer,
    make_steps,
)
from pivq_jax.training.stopping import Interrupted, stop_requests


def dataset_from_config(config: Any) -> Dataset:
    """The data set that a config names, built or opened; with at least two training images."""
    data = config.data
    dataset = load_dataset(data.name, image_size=data.image_size, path=data.path)
    if len(dataset.train) < 2:
        raise InputError(
            f"{data.path or data.name} gives {len(dataset.train)} training image(s), too few to"
            " recombine two: add images"
        )
    return dataset


def objective_from_config(config: Any, model: PIVQ) -> Objective:
    """The loss that a config describes."""
    weights = dict(config.loss)
    network = weights.pop("perceptual_network")
    weights.pop("perceptual_weights")
    perceptual = partial(lpips, network=network) if weights["perceptual"] else None
    return Objective(model, LossWeights(**weights), perceptual, adversary_from_config(config))


def adversary_from_config(config: Any) -> Adversary | None:
    """The discriminator that a config describes, or None where nothing is judged."""
    settings = config.adversarial
    if not settings.weight and not settings.recombined_weight:
        return None
    dtype = jnp.dtype(config.model.dtype)
    return Adversary(
        Discriminator(settings.channels, settings.layers, dtype),
        settings.weight,
        settings.recombined_weight,
        settings.max_adaptive_weight,
        tuple(filter(None, settings.augmentations.split(","))),
    )


def frozen_from_config(config: Any, mesh: Mesh) -> Any:
    """The perceptual network's weights, whole on every device; None where it is not used.

    Raises:
        InputError: the file is missing or is not what it should be.
    """
    if not config.loss.perceptual:
        return None
    weights = load_lpips(config.loss.perceptual_network, config.loss.perceptual_weights)
    return jax.device_put(weights, replicated(mesh))


def phase_at(config: Any, step: int) -> Phase:
    """The part of the run that the step after `step` steps belongs to."""
    settings = config.adversarial
    if step < config.quantizer.init_step:
        return Phase.CONTINUOUS
    judges = settings.weight > 0 or settings.recombined_weight > 0
    return Phase.ADVERSARIAL if judges and step >= settings.start_step else Phase.QUANTIZED


def steps_from_config(config: Any, model: PIVQ, mesh: Mesh) -> Steps:
    """The jitted steps that a config describes."""
    optimizer, schedule = make_optimizer(steps=config.train.steps, **config.optimizer, mesh=mesh)
    discriminator_optimizer = make_discriminator_optimizer(
        learning_rate=config.adversarial.learning_rate, clip_norm=config.optimizer.clip_norm
    )
    return make_steps(
        objective_from_config(config, model),
        optimizer,
        schedule,
        discriminator_optimizer,
        mesh=mesh,
        seed=config.seed,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
        revive_threshold=config.quantizer.revive_threshold,
    )


def train(config: Any, workdir: Path) -> None:
    """Train to `config.train.steps`, from the newest checkpoint in `workdir` if there is one.

    Raises:
        InputError: if the workdir holds another config or a run on other data, or the data is
            missing.
        Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is written.
        FloatingPointError: if the loss is no longer finite; the last checkpoint is kept.
    """
    check_workdir(config, workdir)
    dataset = dataset_from_config(config)
    mesh = make_mesh(config.mesh.fsdp)
    frozen = frozen_from_config(config, mesh)
    model = pivq_from_config(config, mesh)
    steps = steps_from_config(config, model, mesh)

    def write_config() -> None:
        if jax.process_index() == 0:
            write_json(workdir / "config.json", config.to_dict())

    # First of all in a new workdir; where there is a run, only once it can be continued.
    if new := not (workdir / "config.json").exists():
        write_config()

    with Checkpoints(workdir, **config.checkpoints) as checkpoints:
        if checkpoints.latest_step() is None:
            state, seconds = steps.create(), 0.0
        else:
            state, progress = checkpoints.restore(jax.eval_shape(steps.create), mesh)
            # Converted weights have neither.
            seconds = progress.get("train_seconds", 0.0)
            if (trained_on := progress.get("data", dataset.identity)) != dataset.identity:
                raise InputError(
                    f"{workdir} was trained on other data ({trained_on}) than is given now"
                    f" ({dataset.identity}): give the data that it began with, or choose another"
                    " --workdir"
                )
            say(f"resuming from step {int(state.step)} in {workdir}")
        if not new:
            write_config()
        if int(state.step) < config.train.steps:
            _loop(config, workdir, dataset, mesh, steps, frozen, checkpoints, state, seconds)


def _loop(
    config: Any,
    workdir: Path,
    dataset: Dataset,
    mesh: Mesh,
    steps: Steps,
    frozen: Any,
    checkpoints: Checkpoints,
    state: TrainState,
    seconds: float,
) -> None:
    started = time.perf_counter() - seconds
    first_step = int(state.step)
    total_steps, batch_size = config.train.steps, config.train.batch_size
    writes = jax.process_index() == 0  # checkpoints are written by all, all else by the first

    def batches(step: int, workers: int = 0) -> Generator[dict[str, jax.Array]]:
        host = train_batches(
            dataset.train,
            batch_size=batch_size,
            seed=config.seed,
            start_step=step,
            flip=config.data.flip,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=workers,
        )
        with contextlib.closing(host):
            for batch in host:
                yield put_batch({"image": batch["image"]}, mesh)

    def check_finite(step: int, metrics: dict[str, jax.Array]) -> None:
        # Gradients too: the loss is of the weights before this step, the state after it.
        judged = "discriminator_gradient_norm" in metrics
        rates = ["optimizer.learning_rate"]
        if config.optimizer.name == "muon":
            rates.append("optimizer.muon_learning_rate")
        if judged:
            rates.append("adversarial.learning_rate")
        remedy = " or ".join(rates)
        names = ["loss", "gradient_norm", *(["discriminator_gradient_norm"] if judged else [])]
        for name in names:
            if not np.isfinite(value := float(metrics[name])):
                raise FloatingPointError(
                    f"the {name} is {value} at step {step}: lower {remedy}, in a new --workdir; the"
                    f" last good checkpoint is that of step {checkpoints.latest_step()}"
                )

    count = sum(x.size for x in jax.tree.leaves(state.params))
    say(
        f"{count:,} parameters, {len(dataset.train):,} training images, {mesh.size} device(s);"
        f" steps {first_step} to {total_steps}, log in {workdir}"
    )
    with (
        stop_requests() as stop_asked,
        TrainingLog(workdir, first_step, total_steps)
        if writes
        else contextlib.nullcontext() as log,
        ProfilerTrace(workdir, **config.profile) as trace,
        contextlib.closing(batches(first_step, config.data.workers)) as stream,
    ):
        watched = log.watch(stream) if log else stream
        for step, batch in enumerate(watched, start=first_step):
            # `step` steps are done. What happens here depends only on the state, the step and the
            # seed, so a run that resumes here repeats it exactly.
            images = batch["image"]
            trace.at(step, state)
            state = _tend_codebook(config, steps, state, step, images, batches)
            phase = phase_at(config, step)
            state, metrics = steps.train(state, images, frozen, phase)
            step += 1
            if step % config.train.log_every == 0 or step == total_steps:
                check_finite(step, metrics)
                if log:
                    values = {name: float(value) for name, value in metrics.items()}
                    log.write(step, values, batch_size)
            stop = stop_asked(step)
            done = step == total_steps or bool(stop)
            if step % config.train.checkpoint_every == 0 or done:
                check_finite(step, metrics)
                progress: dict[str, Any] = {
                    "train_seconds": time.perf_counter() - started,
                    "data": dataset.identity,
                }
                if config.checkpoints.keep_best and phase > Phase.CONTINUOUS:
                    shown, made = _validation(config, mesh, steps, state, dataset, phase)
                    score = psnr(jnp.asarray(made), jnp.asarray(shown), 255.0)
                    progress[SCORE] = float(jnp.mean(score))
                checkpoints.save(step, state, progress)
            if step % config.train.picture_every == 0:
                shown, made = _validation(config, mesh, steps, state, dataset, phase)
                if writes:
                    picture = reconstruction_grid(shown[:16], made[:16], scale=2)
                    save_png(workdir / "pictures" / f"step_{step:06}.png", picture)
            if done:
                checkpoints.wait()  # while another signal still finds us listening
            if stop:
                raise Interrupted(stop, step)
            if done:
                break
    say(f"trained in {format_duration(time.perf_counter() - started)}")


def _tend_codebook(
    config: Any, steps: Steps, state: TrainState, step: int, images: jax.Array, batches: Any
) -> TrainState:
    """Delayed initialisation at its step; re-initialisation of dead entries now and then."""
    settings = config.quantizer
    if step == settings.init_step:
        started = time.perf_counter()
        with contextlib.closing(batches(step)) as stream:
            latents = [
                steps.latents(state.params, next(stream)["image"])
                for _ in range(settings.init_batches)
            ]
        flat = jnp.concatenate(latents).reshape(-1, config.model.code_dim)
        state = jax.block_until_ready(steps.initialise(state, flat))
        say(
            f"step {step:>6}: codebook of {settings.codebook_size} entries initialised by k-means"
            f" over {flat.shape[0]:,} latents in {time.perf_counter() - started:.1f} s"
        )
    elif (
        settings.init_step < step <= settings.revive_until * config.train.steps
        and (step - settings.init_step) % settings.revive_every == 0
    ):
        state, revived = steps.revive(state, images)
        if int(revived):
            say(f"step {step:>6}: {int(revived)} dead codebook entries re-initialised")
    return state


def _validation(
    config: Any, mesh: Mesh, steps: Steps, state: TrainState, dataset: Dataset, phase: Phase
) -> tuple[np.ndarray, np.ndarray]:
    """The first validation images, at most a batch, and what the averaged weights make of them.

    Both uint8 [n, H, W, 3]. All processes take part and get them all.
    """
    batch = next(
        eval_batches(
            dataset.validation,
            config.train.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
    )
    images = put_batch({"image": batch["image"]}, mesh)["image"]
    reconstructions = steps.reconstruct(state.ema_params, images, phase > Phase.CONTINUOUS)
    originals = jax.jit(lambda x: x, out_shardings=replicated(mesh))(images)
    count = len(dataset.validation)  # the rows after them fill the batch up
    return jax.device_get(originals)[:count], jax.device_get(reconstructions)[:count]
