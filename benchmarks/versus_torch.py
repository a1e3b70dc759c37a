"""Compares the model with its PyTorch counterpart: training step, encoding, decoding, sampling.

    python -m benchmarks.versus_torch [--config=configs/toon_faces.py] [--turns=12] [--no-compile]
        [--batch-size=N]

Both have the same weights, shapes, batches and optimizer and give the same numbers
(tests/interop/reference_test.py). PyTorch's side is the plain reference, which also computes what
ours leaves out: patches in the encoder's last block and the decoder's grid once per image. It runs
in eager mode and with `torch.compile`; its matching is SciPy's. The perceptual network and the
discriminator are left out. Each side has its own process; the sides take turns, and the table has
medians and the median over turns of the ratio of our time to PyTorch's. On a GPU both sides run
there, multiply float32 in TensorFloat-32, and hold their memory at the same time: large configs
need a --batch-size.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.common import parser_for
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config import Config, load_config
from pivq_jax.inference import TrainedModel
from pivq_jax.interop import to_torch
from pivq_jax.interop.torch_model import PIVQ as Reference
from pivq_jax.training.objective import phase_at
from pivq_jax.training.steps import Steps, replace_codebook
from tests.reference.quantizer import recombine
from tests.reference.training import Trainer

Calls = dict[str, Callable[[], Any]]
OURS = "pivq_jax"
WARM_UP, TIMED = 0.3, 0.6  # seconds per turn
TASKS = ("training step", "encode", "decode", "sample")


class Weights(NamedTuple):
    """Inputs of PyTorch's side from ours."""

    state_dict: dict[str, np.ndarray]
    codes: np.ndarray  # int32 [B, N]
    phase: str
    platform: str  # "cpu" or "gpu"
    device: str


def our_calls(config: Config, pixels: np.ndarray) -> tuple[Calls, Weights]:
    """Returns the calls on our side by task, and the weights.

    The codebook fits the latents of the batch `pixels`, uint8 [B, H, W, 3].
    """
    mesh = make_mesh(devices=jax.devices()[:1])  # PyTorch uses one, too
    phase, steps = phase_at(config, config.train.steps - 1), Steps(config, mesh)
    state, images = steps.create(), put_batch(pixels, mesh)
    latents = steps.latents(state.params, images)
    vectors = np.asarray(latents).reshape(-1, config.model.code_dim)
    rng, entries = np.random.default_rng(1), config.quantizer.codebook_size
    codebook = vectors[rng.integers(0, len(vectors), entries)]
    codebook = codebook + 0.3 * rng.normal(size=codebook.shape)
    state = replace_codebook(state, jnp.asarray(codebook, jnp.float32), jnp.ones(entries, bool))
    model = TrainedModel(config, mesh, jax.tree.map(jnp.copy, state.params), 0, {})
    program = steps.train.lower(state, images, {}, phase=phase).compile()
    floats = jnp.asarray(pixels, jnp.float32) / 127.5 - 1
    codes = model.encode(floats)

    def train() -> Any:
        nonlocal state
        state, metrics = program(state, images, None)
        return state, metrics

    def sample() -> jax.Array:
        return model.decode(model.recombine(codes, codes[::-1], jax.random.key(0)))

    def waited(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: jax.block_until_ready(call())

    calls = (train, lambda: model.encode(floats), lambda: model.decode(codes), sample)
    device = jax.devices()[0]
    state_dict, on_host = to_torch(model.params), np.asarray(codes)
    weights = Weights(state_dict, on_host, phase.name.lower(), device.platform, device.device_kind)
    return dict(zip(TASKS, map(waited, calls), strict=True)), weights


def their_calls(config: Config, ours: Weights, pixels: np.ndarray, compiled: bool) -> Calls:
    """Returns the same calls in PyTorch, with the same weights."""
    device = "cuda" if ours.platform == "gpu" else "cpu"
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TensorFloat-32, as JAX does by default
    model = Reference(config.to_dict())
    model.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict.items()})
    model.to(device)
    if compiled:
        model.encoder.compile()
        model.decoder.compile()
    trainer, quantizer = Trainer(model, config.to_dict()), model.quantizer
    batch = torch.from_numpy(pixels).to(device)
    codes = torch.from_numpy(np.array(ours.codes)).long().to(device)

    def images() -> torch.Tensor:
        return batch.permute(0, 3, 1, 2).contiguous() / 127.5 - 1  # float [B, 3, H, W]

    def directions(count: int) -> torch.Tensor:
        return torch.randn(count, quantizer.codebook.shape[1], device=device)

    def train() -> Any:
        return trainer.step(images(), ours.phase, directions(len(batch) // 2), shift=(3, 5))

    def sample() -> torch.Tensor:
        drawn = directions(len(codes))
        kind, codebook = config.quantizer.kind, quantizer.codebook
        return model.decode(recombine(codes, codes.flip(0), codebook, drawn, 0.5, kind))

    def waited(call: Callable[[], Any]) -> Callable[[], Any]:
        half = config.model.dtype == "bfloat16"

        def run() -> None:
            inference = torch.inference_mode(call is not train)
            with inference, torch.autocast(device, dtype=torch.bfloat16, enabled=half):
                call()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    given = images()
    calls = (train, lambda: model.encode(given), lambda: model.decode(codes), sample)
    return dict(zip(TASKS, map(waited, calls), strict=True))


def serve(connection: Connection, side: str, config: Config, weights: Weights | None) -> None:
    """Runs one side in its own process and times the calls that are requested."""
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if weights is None:
        calls, weights = our_calls(config, pixels)
        connection.send(weights)
    else:
        calls = their_calls(config, weights, pixels, compiled=side == "torch.compile")
    for call in calls.values():
        call()
    connection.send("ready")
    for task in iter(connection.recv, None):
        connection.send(time_calls(calls[task]))


def time_calls(call: Callable[[], Any]) -> float:
    """Median milliseconds of consecutive calls, after a warm-up."""
    times: list[float] = []
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < WARM_UP + TIMED or not times:
        started = time.perf_counter()
        call()
        if passed >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def print_table(sides: dict[str, Connection], turns: int) -> None:
    """Prints the medians of each task on each side, and the ratios."""
    others = [name for name in sides if name != OURS]
    heads = "".join(f"{name:>15}{'ours / it':>11}" for name in others)
    print(f"{'milliseconds':<18}{OURS:>9}{heads}")
    for task in TASKS:
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(turns):
            for name, connection in sides.items():
                connection.send(task)
                times[name].append(connection.recv())
        line = f"{task:<18}{statistics.median(times[OURS]):9.1f}"
        for name in others:
            ratio = statistics.median(a / b for a, b in zip(times[OURS], times[name], strict=True))
            line += f"{statistics.median(times[name]):15.1f}{ratio:11.2f}"
        print(line, flush=True)


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", default="configs/toon_faces.py", help="may have variants")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--batch-size", type=int, help="default: that of the config")
    options = parser.parse_args()
    left_out = ("loss.perceptual", "adversarial.weight", "adversarial.recombined_weight")
    changes: dict[str, Any] = dict.fromkeys(left_out, 0.0)
    changes |= {"train.batch_size": options.batch_size} if options.batch_size else {}
    config = load_config(options.config).with_fields(changes)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # leaves GPU memory to PyTorch
    spawn = multiprocessing.get_context("spawn")

    def start(side: str, weights: Weights | None) -> Connection:
        connection, end = spawn.Pipe()
        process = spawn.Process(target=serve, args=(end, side, config, weights), daemon=True)
        process.start()
        end.close()  # so that recv() raises EOFError if the process fails
        return connection

    sides = {OURS: start(OURS, None)}
    weights = sides[OURS].recv()
    if weights.platform != "cpu" and not (weights.platform == "gpu" and torch.cuda.is_available()):
        parser.error(
            f"JAX computes on {weights.device}, which PyTorch {torch.__version__} cannot use:"
            " install PyTorch with CUDA, or set JAX_PLATFORMS=cpu"
        )
    for name in ("PyTorch", "torch.compile")[: 1 if options.no_compile else 2]:
        sides[name] = start(name, weights)
    for connection in sides.values():
        connection.recv()
    which = f"{options.config}, {config.optimizer.name}, batches of {config.train.batch_size}"
    print(f"{which}, {weights.device}, {os.cpu_count()} CPU cores", flush=True)
    print_table(sides, options.turns)
    for connection in sides.values():
        connection.send(None)


if __name__ == "__main__":
    main()
