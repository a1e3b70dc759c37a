"""The training loop: restores, trains, logs and writes checkpoints."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pivq_jax.common import parallel
from pivq_jax.common.cost import cost_table, format_duration
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import ignore_bucket_errors, write_json
from pivq_jax.common.lock import DirectoryLock, lock_directory
from pivq_jax.common.memory import malloc_hint
from pivq_jax.common.parallel import print_once
from pivq_jax.common.params import Params
from pivq_jax.common.pictures import reconstruction_grid, save_png
from pivq_jax.common.psnr import psnr
from pivq_jax.common.stopping import Interrupted, stop_requests
from pivq_jax.config.check import check_workdir, config_of_model, read_config
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset
from pivq_jax.data.pipeline import eval_batches, shuffle_version, train_batches
from pivq_jax.data.sources import first_images
from pivq_jax.training.build import dataset_from_config, load_networks
from pivq_jax.training.checkpoints import SCORE, Checkpoints, check_place
from pivq_jax.training.cost import Clock, peak_of, step_flops
from pivq_jax.training.logs import ProfilerTrace, TrainingLog, check_log
from pivq_jax.training.objective import Networks, Phase, check_phases, phase_at
from pivq_jax.training.optimizer import learning_rate_schedule
from pivq_jax.training.steps import CODEBOOK, Arrays, Steps, TrainState, with_arrays

# Names the parameters from which a run began; until its first checkpoint it needs them again.
INITIAL = "init_from.json"

# Reconstructs so many validation images: both are uint8 [M, H, W, 3].
Reconstruct = Callable[[int], tuple[np.ndarray, np.ndarray]]
Evaluation = tuple[dict[str, float], dict[str, np.ndarray]]  # figures and pictures, by name
# Measures the averaged parameters at a step, which are None before codebook initialization, else
# on every device; all processes call it alike. `evaluation.evaluator` has that of the command.
Evaluator = Callable[[Dataset, Mesh, int, Params | None, Reconstruct], Evaluation]

# A run stops if one of these is not finite.
CHECKED = ("loss", "gradient_norm", "discriminator_gradient_norm", "latent_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The constants of a run."""

    config: Config
    workdir: Path
    dataset: Dataset
    mesh: Mesh
    steps: Steps
    networks: Networks  # frozen networks that losses use
    checkpoints: Checkpoints
    lock: DirectoryLock
    evaluator: Evaluator | None
    initial: Arrays | None  # parameters that are not random at first


def train(
    config: Config,
    workdir: Path,
    evaluator: Evaluator | None = None,
    initial: Callable[[Config], Arrays] | None = None,
    tracker: str = "",
) -> Dataset:
    """Trains up to step `config.train.steps`, from the newest checkpoint in `workdir` if any.

    The config is one that `check_config` has checked. `initial` gives parameters to start from, and
    is called if there is no checkpoint. Raises Interrupted after Ctrl-C or SIGTERM, once a
    checkpoint is written, and FloatingPointError if the loss or a gradient is not finite.
    """
    started = time.perf_counter()
    check_log(workdir, tracker)
    check_workdir(config, workdir, extends=True)
    check_place(workdir)
    with lock_directory(workdir) as lock:
        arrays = _initial_arrays(config, workdir, initial)
        remedy = "give --init_from with the same file to all"
        parallel.check_same_arrays("weights to begin with", arrays or {}, remedy)
        dataset = dataset_from_config(config)
        mesh = parallel.make_mesh(config.mesh.fsdp)
        networks = load_networks(config, mesh)
        steps = Steps(config, mesh)
        # In a new workdir, first of all; in that of an existing run, only once it can be continued.
        if new := not (workdir / "config.json").exists():
            _write_config(config, workdir, arrays)
        with Checkpoints(workdir, **config.checkpoints) as checkpoints:
            run = Run(
                config=config,
                workdir=workdir,
                dataset=dataset,
                mesh=mesh,
                steps=steps,
                networks=networks,
                checkpoints=checkpoints,
                lock=lock,
                evaluator=evaluator,
                initial=arrays,
            )
            state, progress = _first_state(run)
            step = int(state.step)
            clock = Clock.resumed(workdir, step, progress, started)
            if not new:
                if step:
                    planned = config_of_model(read_config(workdir), str(workdir))
                    check_phases(config, planned, step)
                    _print_schedule(config, planned.train.steps, step)
                _write_config(config, workdir, arrays)
            if step < config.train.steps:
                _loop(run, state, clock, tracker)
    return dataset


def _initial_arrays(
    config: Config, workdir: Path, initial: Callable[[Config], Arrays] | None
) -> Arrays | None:
    """The parameters to start from, unless they are random or those of a checkpoint."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        newest = checkpoints.latest_step()
    if newest is None and initial:
        return initial(config)
    if newest is None and (workdir / INITIAL).exists():
        raise InputError(
            f"{workdir} began from other weights and has no checkpoint yet: give --init_from again,"
            " or choose another --workdir"
        )
    if initial:
        print_once(
            f"{workdir} has its own checkpoint, of step {newest}, from which it goes on; for a new"
            " run from other weights choose another --workdir"
        )
    return None


def _write_config(config: Config, workdir: Path, arrays: Arrays | None) -> None:
    if jax.process_index() == 0:
        if arrays:  # first, as a run that has a config is continued by --workdir alone
            write_json(workdir / INITIAL, sorted(map("/".join, arrays)))
        write_json(workdir / "config.json", config.to_dict())


def _first_state(run: Run) -> tuple[TrainState, dict[str, Any]]:
    """The state to continue from, and the progress in its checkpoint, if it is from one."""
    if run.checkpoints.latest_step() is None:
        state = run.steps.create()
        return with_arrays(state, run.initial) if run.initial else state, {}
    state, progress = run.checkpoints.restore(jax.eval_shape(run.steps.create), run.mesh)
    identity = run.dataset.identity
    # Converted weights have none of the entries.
    if (trained_on := progress.get("data", identity)) != identity:
        raise InputError(
            f"{run.workdir} was trained on other data ({trained_on}) than is given now"
            f" ({identity}): give the data that it began with, or choose another --workdir"
        )
    print_once(f"resuming from step {int(state.step)} in {run.workdir}")
    if (order := progress.get("order", shuffle_version())) != shuffle_version():
        print_once(
            f"the order of the images may change from here on: it was that of {order}, and"
            f" {shuffle_version()} is installed"
        )
    return state, progress


def _print_schedule(config: Config, planned: int, step: int) -> None:
    """Says what changes for a run that was planned for fewer steps."""
    steps = config.train.steps
    if planned < steps:
        before, now = (learning_rate_schedule(config.optimizer, n)(step) for n in (planned, steps))
        print_once(
            f"train.steps is raised from {planned} to {steps}: from step {step} on, the schedule is"
            f" that of {steps} steps, with a learning rate of {float(now):.3g} instead of"
            f" {float(before):.3g}, which falls to 0"
        )


def _loop(run: Run, state: TrainState, clock: Clock, tracker: str) -> None:
    """Trains to the last step from `state`, on which the time of `clock` was spent."""
    config, first_step, last_step = run.config, int(state.step), run.config.train.steps
    every = config.evaluate.every
    _print_opening(run, state, first_step)
    # Checkpoints are written by all processes, everything else by the first.
    log = None
    if jax.process_index() == 0:
        clock.peak = peak_of(jax.local_devices()[0])
        log = TrainingLog(run.workdir, first_step, last_step, clock, tracker)
    opening = clock.count_opening()
    with (
        stop_requests() as stop_asked,
        log or contextlib.nullcontext(),
        contextlib.closing(ProfilerTrace(run.workdir, **config.profile)) as trace,
        contextlib.closing(_batches(run, first_step, config.data.workers)) as stream,
    ):
        if stop := stop_asked():
            raise Interrupted(stop, first_step)
        kept_step = first_step  # of the newest checkpoint, if there is one
        for step in range(first_step, last_step):
            # `step` steps are completed. What follows depends only on the state, the step and the
            # seed, so a run resumed here repeats it exactly.
            with clock.on(opening if step == first_step else "input"):  # the first starts workers
                images = next(stream)
            run.lock.check()
            trace.at(step, state)
            phase = phase_at(config, step)
            compiles = step == first_step or phase != phase_at(config, step - 1)
            if compiles:  # in silence, for minutes on a slow machine
                print_once(f"step {step:6}: compiling the {phase.name.lower()} training step")
            purpose = opening if step == first_step else "start"
            with clock.on(purpose, state) if compiles else contextlib.nullcontext():
                state = _initialize_or_revive_codebook(run, state, step, images)
                if compiles and log:
                    lowered = run.steps.train.lower(state, images, run.networks, phase)
                    clock.flops = step_flops(config, phase, run.mesh.size, lowered)
                state, metrics = run.steps.train(state, images, run.networks, phase)
                if compiles:
                    jax.block_until_ready(metrics)
                else:
                    clock.count_step()
            completed = step + 1  # `phase` is that of the last of these, not of the next step
            if step == kept_step:  # this loss is the first of the parameters that were saved
                check_finite(run, completed, metrics)
            if completed % config.train.log_every == 0 or completed == last_step:
                values = check_finite(run, completed, metrics)
                if log:
                    log.write(completed, values, config.train.batch_size)
            stop = stop_asked()  # after the wait for these metrics, in which a signal may come
            done = completed == last_step or bool(stop)
            saves = completed % config.train.checkpoint_every == 0 or done
            measures = run.evaluator and every and completed % every == 0 and not stop
            if saves or measures:
                check_finite(run, completed, metrics)
            if saves:
                # A preempted process may have only 30 seconds left, and k-means can take longer.
                urgent = bool(stop) and (stop != signal.SIGINT or jax.process_count() > 1)
                if log:
                    log.flush()  # steps before a checkpoint are not logged again
                with clock.on("checkpoints", state):
                    progress = clock.progress()  # without the time that this takes
                    state = _save(run, state, completed, phase, progress, urgent)
                kept_step = completed
            # After the checkpoint, so that a failing evaluation does not lose it.
            if measures and clock.allows(config.evaluate.share):
                with clock.on_evaluation(state):
                    figures, pictures = evaluate(run, state, completed, phase)
                if log:
                    log.write_evaluation(completed, figures, pictures)
            if completed % config.train.picture_every == 0 and not stop:
                with clock.on("pictures", state):
                    save_picture(run, state, completed, phase)
            if done:
                with clock.on("checkpoints"):
                    run.checkpoints.wait()  # while signals are still handled
                cost = clock.cost(completed, config.train.batch_size, run.mesh)
                for line in cost_table({"run": cost}).splitlines():
                    print_once(line)
                if stop := stop or stop_asked():  # one may have come since the last step
                    raise Interrupted(stop, completed)
    print_once(f"trained in {format_duration(clock.seconds())}")


def _print_opening(run: Run, state: TrainState, first_step: int) -> None:
    """Says what will be trained, on what and where the log is."""
    count = sum(x.size for x in jax.tree.leaves(state.params))
    print_once(
        f"{count:,} parameters, {len(run.dataset.train):,} training images, {run.mesh.size}"
        f" device(s); steps {first_step} to {run.config.train.steps}, log in {run.workdir}"
    )
    if hint := malloc_hint(jax.default_backend()):
        print_once(hint)
    profile = run.config.profile
    if profile.steps and first_step > profile.first_step:
        print_once(
            f"no profile is recorded: step {first_step} is past profile.first_step ="
            f" {profile.first_step}"
        )


def _batches(run: Run, step: int, workers: int = 0) -> Generator[jax.Array]:
    """Yields images uint8 [B, H, W, 3], split over the devices, starting at the batch of `step`."""
    host = train_batches(
        run.dataset.train,
        batch_size=run.config.train.batch_size,
        seed=run.config.seed,
        start_step=step,
        flip=run.config.data.flip,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        host_processes=parallel.processes_of_host(),  # all call it, workers or not
        workers=workers,
    )
    with contextlib.closing(host):
        for batch in host:
            yield parallel.put_batch(batch["image"], run.mesh)


def _initialize_or_revive_codebook(
    run: Run, state: TrainState, step: int, images: jax.Array
) -> TrainState:
    """Initializes the codebook when due, or periodically revives its dead entries.

    It must run before `train` at `init_step`, the first step that quantizes.
    """
    settings, first = run.config.quantizer, run.config.init_step
    if step == first and not (run.initial and CODEBOOK in run.initial):
        started = time.perf_counter()
        state = _initialize_codebook(run, state, state.params, step)
        count = settings.init_batches * run.config.train.batch_size * run.config.model.num_codes
        print_once(
            f"step {step:>6}: codebook of {settings.codebook_size} entries initialised by k-means"
            f" over {count:,} latents in {time.perf_counter() - started:.1f} s"
        )
    elif (
        phase_at(run.config, step) in (Phase.QUANTIZED, Phase.ADVERSARIAL)
        and first < step <= settings.revive_until * run.config.train.steps
        and (step - first) % settings.revive_every == 0
    ):
        state, revived = run.steps.revive(state, images)
        if int(revived):
            print_once(f"step {step:>6}: {int(revived)} dead codebook entries re-initialised")
    return state


def _initialize_codebook(run: Run, state: TrainState, params: Params, step: int) -> TrainState:
    """Initializes the codebook from the latents of the next batches, as `params` encode them.

    Principal components are first found of the same images.
    """
    count = run.config.quantizer.init_batches
    if run.config.model.encoder == "components":
        with contextlib.closing(_batches(run, step)) as stream:
            images = jnp.stack([next(stream) for _ in range(count)])
        state = run.steps.find_components(state, images)
        params = state.params
    with contextlib.closing(_batches(run, step)) as stream:
        latents = [run.steps.latents(params, next(stream)) for _ in range(count)]
    every = jnp.stack(latents)
    check_finite(run, step, {"latent_norm": jnp.linalg.norm(every.ravel())})
    return jax.block_until_ready(run.steps.initialise(state, every))


def _save(
    run: Run, state: TrainState, step: int, phase: Phase, progress: dict[str, Any], urgent: bool
) -> TrainState:
    """Starts to write a checkpoint, and returns the state to continue with.

    Before codebook initialization, unless `urgent`, one is fitted to the latents of the averaged
    weights, so that the checkpoint is a model that can be used; training does not depend on it.
    """
    quantized = phase > Phase.CONTINUOUS
    codebook = "trained" if quantized else "none"
    if not quantized and not urgent:
        print_once(
            f"step {step:>6}: fitting a codebook to the checkpoint by k-means, perhaps for minutes"
        )
        state = _initialize_codebook(run, state, state.ema_params, step)
        codebook = "fitted"
    if quantized and run.config.checkpoints.keep_best and not urgent:
        originals, reconstructions = map(jnp.asarray, reconstruct_validation(run, state, phase))
        progress[SCORE] = float(jnp.mean(psnr(reconstructions, originals, 255.0)))
    progress |= {"data": run.dataset.identity, "order": shuffle_version(), "codebook": codebook}
    run.checkpoints.save(step, state, progress)
    return state


def check_finite(run: Run, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """Waits for metrics and returns them; FloatingPointError if one of `CHECKED` is not finite.

    Gradients are checked as well, since the loss belongs to the weights before the step. If these
    are those of a checkpoint, it is set aside.
    """
    values = {name: float(value) for name, value in metrics.items()}
    rates = ["optimizer.learning_rate"]
    if run.config.optimizer.name == "muon":
        rates.append("optimizer.muon_learning_rate")
    if "discriminator_gradient_norm" in metrics:
        rates.append("adversarial.learning_rate")
    for name in CHECKED:
        if not np.isfinite(value := values.get(name, 0.0)):
            spoiled = name == "loss" and run.checkpoints.set_aside(step - 1)
            last = run.checkpoints.latest_step()
            raise FloatingPointError(
                f"the {name} is {value} at step {step}: lower {' or '.join(rates)}, in a new"
                " --workdir; "
                + (f"the weights of step {step - 1} gave it and are set aside; " if spoiled else "")
                + (f"the last good checkpoint is that of step {last}" if last else "none was saved")
            )
    return values


def save_picture(run: Run, state: TrainState, step: int, phase: Phase) -> None:
    """Writes a picture of validation images above their reconstructions."""
    originals, reconstructions = reconstruct_validation(run, state, phase)
    if jax.process_index() == 0:
        picture = reconstruction_grid(originals[:16], reconstructions[:16])
        path = run.workdir / "pictures" / f"step_{step:06}.png"
        with ignore_bucket_errors(path):
            save_png(path, picture)


def evaluate(run: Run, state: TrainState, step: int, phase: Phase) -> Evaluation:
    assert run.evaluator
    params = None
    if phase > Phase.CONTINUOUS:
        params = jax.device_put(state.ema_params, parallel.replicated(run.mesh))
    reconstruct = partial(reconstruct_validation, run, state, phase)
    return run.evaluator(run.dataset, run.mesh, step, params, reconstruct)


def reconstruct_validation(
    run: Run, state: TrainState, phase: Phase, most: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The first validation images, a batch or `most`, and reconstructions by averaged weights.

    Both are uint8 [n, H, W, 3]. All processes must take part, and each gets all images.
    """
    batch_size = run.config.train.batch_size
    validation = first_images(run.dataset.validation, most or batch_size)
    originals, reconstructions = [], []
    for batch in eval_batches(validation, batch_size):
        images = parallel.split_rows(jnp.asarray(batch["image"]), run.mesh)
        rebuilt = run.steps.reconstruct(state.ema_params, images, phase > Phase.CONTINUOUS)
        originals.append(batch["image"])
        reconstructions.append(jax.device_get(rebuilt))
    count = len(validation)  # further rows are padding
    return np.concatenate(originals)[:count], np.concatenate(reconstructions)[:count]
