"""python -m launch.plan --config=configs/ffhq.py --topology=v5e:8x8

Compiles the training step of a config for a TPU slice with the compiler of the slice, but without
the slice; this only requires pip install "jax[tpu]". Prints whether it fits, what each chip
computes and sends, an estimate of the step time, and the hours of the training as a range.

Topologies are written as in Cloud TPU: v5e:4x4, v5e:8x8, v4:2x2x2, v5p:4x4x4, v6e:8x8, ...
Fields of the config are changed as in training, for example --config.mesh.fsdp=4.

Exit status: 0 if it fits, 1 if it does not, 2 for invalid input. Compilation takes minutes, as at
the start of a training, and needs no accelerator.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, TypeVar

from absl import app, flags

from launch import compiler
from launch.compiler import GIB, DoesNotFit, Plan
from pivq_jax.common.command_line import exit_code, parse_flags
from pivq_jax.common.cost import Cost, cost_table
from pivq_jax.common.errors import InputError
from pivq_jax.common.output import progress_bar
from pivq_jax.config.fields import Config, all_fields
from pivq_jax.config.loader import define_config_flag

T = TypeVar("T")

_CONFIG = define_config_flag()
_FIELDS = [field.name for field in all_fields()]
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice, such as v5e:8x8.")
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Also compile for one chip and compare its flops, with equal images per chip."
)

# The share of the roofline's speed that a run is assumed to reach, until one has been timed.
EFFICIENCY = 0.35


def shares_out(config: Config, chips: int, factor: int) -> bool:
    """Whether the batch can be split over the chips in `factor` times as many parts."""
    from pivq_jax.config.check import check_devices

    changed = config.with_fields({"train.accumulation": config.train.accumulation * factor})
    try:
        check_devices(changed, chips)
    except InputError:
        return False
    return config.train.batch_size % changed.train.accumulation == 0


def knobs(config: Config, chips: int, state: float, excess: float) -> list[str]:
    """Suggests changes, a line each, if `excess` bytes do not fit and the state has `state`."""
    advice = []
    fsdp = config.mesh.fsdp
    if fsdp < chips:
        saved = state * (1 - fsdp / chips)
        advice.append(
            f"--config.mesh.fsdp={chips}: splits the state over all chips, saving up to"
            f" {saved / GIB:.1f} GiB of its {state / GIB:.1f} GiB"
            + (" (not enough alone)" if saved < excess else "")
        )
    if not config.model.remat:
        advice.append(
            "--config.model.remat=True: keeps only the inputs of each block, for a third more flops"
        )
    images = config.train.batch_size // config.train.accumulation // chips
    factor = next((n for n in range(2, images + 1) if shares_out(config, chips, n)), None)
    if factor:
        advice.append(
            f"--config.train.accumulation={config.train.accumulation * factor}:"
            f" {images // factor} images per chip at a time instead of {images}, the same step"
        )
        advice.append(
            f"--config.train.batch_size={config.train.batch_size // factor}: fewer images per step"
        )
    advice.append("a slice with more chips, or chips with more memory (v4 and v6e: 32 GiB)")
    return advice


def describe(plan: Plan, config: Config, model_flops: float | None) -> str:
    """Formats a plan as text, with the model's flops of a step for each chip."""
    times, chip = plan.times, plan.chip
    lines = [
        f"{config.name} on {plan.topology}: {plan.chips} chips, mesh"
        f" {plan.chips // config.mesh.fsdp}x{config.mesh.fsdp}, batch of {config.train.batch_size}"
        f" in {config.train.accumulation} part(s); compiled in {plan.seconds:.0f} s",
        "per chip:",
        f"  memory       {plan.memory / GIB:8.2f} GiB of {chip.memory / GIB:.0f}, of which state"
        f" {plan.state / GIB:.2f}",
        f"  flops        {plan.flops / 1e12:8.2f} TFLOP per step",
        f"  HBM traffic  {plan.traffic / GIB:8.2f} GiB per step",
        *(
            f"  {kind:<20} {sent / 2**20:10.1f} MiB sent per step"
            for kind, sent in sorted(plan.moved.items())
        ),
        "estimate (roofline: every resource at its peak, loops of matching counted once):",
        "  " + ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in times.items()),
        "",
        cost_table(costs(plan, config, model_flops)),
    ]
    return "\n".join(lines)


def costs(plan: Plan, config: Config, model_flops: float | None) -> dict[str, Cost]:
    """The cost of a whole training: at the roofline, which no program reaches, and to plan with.

    Of what time is lost to, only evaluations are known before a run, by their limit.
    """
    found, share = {}, config.evaluate.share if config.evaluate.every else 0.0
    for name, efficiency in (("at best", 1.0), (f"at {EFFICIENCY:.0%} of that speed", EFFICIENCY)):
        seconds = plan.step_seconds / efficiency
        busy = config.train.steps * seconds
        lost = {} if efficiency == 1 or share == 1 else {"evaluations": busy * share / (1 - share)}
        found[name] = Cost(
            devices=f"{plan.chips} {plan.topology.split(':')[0]}",
            peak=plan.chip.flops,
            flops=model_flops,
            share=model_flops and model_flops / plan.chip.flops / seconds,
            step_seconds=seconds,
            batch_size=config.train.batch_size,
            steps=config.train.steps,
            lost=lost,
            total=busy + sum(lost.values()),
        )
    return found


def watched(what: str, call: Callable[[], T]) -> T:
    """Returns what `call` returns, and shows meanwhile how long it takes.

    It runs in another thread, as the compiler answers no signal: Ctrl-C and SIGTERM end the process
    here, with the exit status of shells.
    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    def end(number: int, frame: Any) -> None:
        print(f"\nended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
        os._exit(128 + number)  # a thread in the compiler cannot be ended otherwise

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        threading.Thread(target=work, daemon=True).start()
        with progress_bar(desc=what, bar_format="{desc}: {elapsed}") as bar:
            while not result.done():
                wait([result], timeout=0.5)
                bar.update()
        return result.result()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def flops_against_one_chip(config: Config, plan: Plan, devices: list[Any]) -> str:
    """Flops per chip relative to those of a step on one chip, if it fits, with as many images."""
    batch_size = config.train.batch_size // len(devices)
    alone = config.with_fields({"mesh.fsdp": 1, "train.batch_size": batch_size})
    try:
        return f"{plan.flops / compiler.make_plan(alone, plan.topology, devices[:1]).flops:.3f}"
    except DoesNotFit:
        return "one chip cannot hold it"


def main(arguments: list[str]) -> int:
    """Plans the training of the config on the slice."""
    if len(arguments) > 1:
        raise InputError(f"unexpected argument {arguments[1]!r}: flags look like --name=value")
    if _CONFIG.value is None or not _TOPOLOGY.value:
        raise InputError("give --config and --topology; see --help")
    from pivq_jax.config.check import check_config
    from pivq_jax.training.cost import step_flops

    config, topology = Config.from_dict(_CONFIG.value.to_dict()), _TOPOLOGY.value
    check_config(config, training=False)
    devices = compiler.devices_of(topology)
    try:
        what = f"compiling a step for {topology}, minutes on an idle machine"
        plan = watched(what, partial(compiler.make_plan, config, topology, devices))
    except DoesNotFit as error:
        excess = error.used - error.limit
        print(f"{config.name} does not fit {topology}: {error}, {excess / GIB:.1f} GiB too much.")
        print("Possible changes:")
        print("\n".join(f"  {knob}" for knob in knobs(config, len(devices), error.state, excess)))
        return 1
    print(describe(plan, config, step_flops(config, compiler.last_phase(config), len(devices))))
    if _COMPARE.value:
        ratio = flops_against_one_chip(config, plan, devices)
        print(f"flops per chip, relative to one chip with the same number of images: {ratio}")
    return 0


if __name__ == "__main__":
    os.environ.update(compiler.ENVIRONMENT)
    app.run(
        lambda arguments: exit_code(partial(main, arguments)),
        flags_parser=partial(parse_flags, _FIELDS, sys.modules[__name__]),
    )
