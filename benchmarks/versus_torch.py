"""Compares the model with its PyTorch counterpart: training step, encoding, decoding, sampling.

    python -m benchmarks.versus_torch [--config=configs/toon_faces.py] [--turns=12] [--no-compile]
        [--batch-size=N] [--optimizer=muon|adamw] [--torch-muon]

Both have the same weights, shapes and batches and give the same numbers
(tests/interop/reference_test.py). PyTorch's side is the plain reference, which also computes what
ours leaves out: patches in the encoder's last block, the decoder's grid once per image and, with
several stages, Muon of the frozen encoder. PyTorch runs in eager mode and with `torch.compile`,
with its default threads; its matching is SciPy's. Each side has its own process, since the thread
pools of both in one process slow each other down. Everything is compiled and warmed up before the
first measurement. The sides alternate; the table contains medians and, for each call of PyTorch,
the median over turns of the ratio of our time to its time. At the end, prints a profile of the
operations of one of our training steps, on one core of a CPU.

Both use the optimizer of the config. Both versions of Muon run in float32 on CPU, with the matrices
of one shape in one batch. With --torch-muon, another row compares our training step with PyTorch's
using its own `torch.optim.Muon`, which does less: it uses bfloat16 and handles only linear layers,
with convolutions left to AdamW.

The perceptual network and the augmentations of the discriminator's images are left out on both
sides. On a GPU both sides run there, multiply float32 in TensorFloat-32 as JAX does by default, and
hold their memory at the same time: --config=configs/ffhq.py needs a smaller batch than its 256,
such as --batch-size=32.
"""

import collections
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.common import parser_for
from benchmarks.training_step import bind_to_one_core, profile
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config import Config, load_config
from pivq_jax.config.sections import OPTIMIZERS
from pivq_jax.inference import TrainedModel
from pivq_jax.interop import to_torch
from pivq_jax.model.quantizer import prepend_places
from pivq_jax.training.objective import phase_at
from pivq_jax.training.steps import Steps, replace_codebook
from tests.reference.model import PIVQ as Reference
from tests.reference.quantizer import recombine
from tests.reference.training import Trainer

Calls = dict[str, Callable[[], Any]]
OURS = "pivq_jax"
WARM_UP, TIMED = 0.3, 0.6  # seconds per turn
TASKS = ("training step", "encode", "decode", "sample")
TORCH_MUON = "torch.optim.Muon"  # name of the row with PyTorch's own Muon
# Patterns in the scope of an operation; the first match determines its category.
PARTS = {
    "matching and distances": r"[/(](matching|distances)[/)]",
    "Muon's iterations": r"/muon/",
    "attention": r"_attention/",
    "MLP": r"/mlp/",
    "layer norms": r"norm",
    "the output": r"/(local_)?output/",
    "other layers": r"/encoder/|/decoder/",
}


class Weights(NamedTuple):
    """Inputs of PyTorch's side from ours."""

    state_dict: dict[str, np.ndarray]
    codes: np.ndarray  # int32 [B, N]
    phase: str
    platform: str  # "cpu" or "gpu"
    device: str


class Ours:
    """The calls on our side, with a codebook that fits the latents of the batch."""

    def __init__(self, config: Config, pixels: np.ndarray) -> None:
        self.mesh = make_mesh(devices=jax.devices()[:1])  # PyTorch uses one, too
        self.phase = phase_at(config, config.train.steps - 1)
        self.steps = Steps(config, self.mesh)
        self.images = put_batch(pixels, self.mesh)
        state = self.steps.create()
        latents = self.steps.latents(state.params, self.images)
        if config.model.stages > 1:
            latents = prepend_places(latents, config.model.code_dim - latents.shape[-1])
        vectors = np.asarray(latents).reshape(-1, config.model.code_dim)
        rng, entries = np.random.default_rng(1), config.quantizer.codebook_size
        codebook = vectors[rng.integers(0, len(vectors), entries)]
        codebook = codebook + 0.3 * rng.normal(size=codebook.shape)
        self.state = replace_codebook(
            state, jnp.asarray(codebook, jnp.float32), jnp.ones(entries, bool)
        )
        params = jax.tree.map(jnp.copy, self.state.params)
        self.model = TrainedModel(config, self.mesh, params, 0, {})
        arguments = (self.state, self.images, None)
        self.program = self.steps.train.lower(*arguments, phase=self.phase).compile()
        self.floats = jnp.asarray(pixels, jnp.float32) / 127.5 - 1
        self.codes = self.model.encode(self.floats)

    def train(self) -> None:
        """Runs one training step."""
        self.state, metrics = self.program(self.state, self.images, None)
        jax.block_until_ready((self.state, metrics))

    def weights(self) -> Weights:
        """Returns the inputs of PyTorch's side."""
        state_dict, codes = to_torch(self.model.params), np.asarray(self.codes)
        device = jax.devices()[0]
        phase = self.phase.name.lower()
        return Weights(state_dict, codes, phase, device.platform, device.device_kind)

    def calls(self) -> Calls:
        """Returns the calls by task."""

        def sample() -> Any:
            key = jax.random.key(0)
            mixed = self.model.recombine(self.codes, self.codes[::-1], key)
            return jax.block_until_ready(self.model.decode(mixed))

        calls: list[Callable[[], Any]] = [
            self.train,
            lambda: jax.block_until_ready(self.model.encode(self.floats)),
            lambda: jax.block_until_ready(self.model.decode(self.codes)),
            sample,
        ]
        return dict(zip(TASKS, calls, strict=True)) | {TORCH_MUON: self.train}


class Theirs:
    """The same calls in PyTorch, with the same weights."""

    def __init__(self, config: Config, ours: Weights, pixels: np.ndarray, compiled: bool) -> None:
        self.device = "cuda" if ours.platform == "gpu" else "cpu"
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")  # TensorFloat-32, as JAX does by default
        self.half, self.kind = config.model.dtype == "bfloat16", config.quantizer.kind
        reference = Reference(config.to_dict())
        reference.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict.items()})
        reference.to(self.device)
        if compiled:
            reference.encoder.compile()
            reference.decoder.compile()
        self.model, self.phase = reference, ours.phase
        self.config = config.to_dict()
        self.pixels = torch.from_numpy(pixels).to(self.device)
        self.codes = torch.from_numpy(np.array(ours.codes)).long().to(self.device)

    def images(self) -> torch.Tensor:
        """Returns the images as float [B, 3, H, W] in [-1, 1]."""
        return self.pixels.permute(0, 3, 1, 2).contiguous() / 127.5 - 1

    def directions(self, count: int) -> torch.Tensor:
        """Draws `count` directions for recombination, with several stages those of lines."""
        quantizer = self.model.quantizer
        size = quantizer.codebook.shape[1] if quantizer.stages == 1 else 2
        return torch.randn(count, size, device=self.device)

    def step(self, optimizer: str) -> Callable[[], Any]:
        """Returns the training step with the optimizer of this name."""
        settings = {**self.config["optimizer"], "name": optimizer}
        trainer = Trainer(self.model, {**self.config, "optimizer": settings})
        if self.phase == "adversarial":
            trainer.discriminator.to(self.device)
        count = len(self.pixels) // 2
        return lambda: self.run(
            lambda: trainer.step(self.images(), self.phase, self.directions(count), shift=(3, 5))
        )

    def run(self, call: Callable[[], Any]) -> Any:
        """Runs a call in the dtype of the config and waits for it."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.half):
            result = call()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return result

    @torch.inference_mode()
    def without_gradients(self, call: Callable[[], Any]) -> Any:
        """Same as `run`, without gradients."""
        return self.run(call)

    def calls(self, tasks: Sequence[str]) -> Calls:
        """Returns the calls by task."""
        model, count = self.model, len(self.pixels)
        images = self.images()

        def sample() -> Any:
            others, directions = self.codes.flip(0), self.directions(count)
            quantizer = model.quantizer
            places = quantizer.places if quantizer.stages > 1 else None
            mixed = recombine(
                self.codes, others, quantizer.codebook, directions, 0.5, self.kind, places
            )
            return model.decode(mixed)

        return {
            "training step": self.step(self.config["optimizer"]["name"]),
            **({TORCH_MUON: self.step(TORCH_MUON)} if TORCH_MUON in tasks else {}),
            "encode": lambda: self.without_gradients(lambda: model.encode(images)),
            "decode": lambda: self.without_gradients(lambda: model.decode(self.codes)),
            "sample": lambda: self.without_gradients(sample),
        }


def serve(
    connection: Connection, side: str, config: Config, weights: Weights | None, tasks: Sequence[str]
) -> None:
    """Runs one side in its own process and times the calls that are requested."""
    pixels = pixels_for(config)
    if weights is None:
        ours = Ours(config, pixels)
        calls = ours.calls()
        connection.send(ours.weights())
    else:
        calls = Theirs(config, weights, pixels, compiled=side == "torch.compile").calls(tasks)
    for task in tasks:
        calls[task]()
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


def print_table(sides: dict[str, Connection], tasks: Sequence[str], turns: int) -> None:
    """Prints the medians of each task on each side, and the ratios."""
    others = [name for name in sides if name != OURS]
    heads = "".join(f"{name:>15}{'ours / it':>11}" for name in others)
    print(f"{'milliseconds':<18}{OURS:>9}{heads}")
    for task in tasks:
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


def print_profile(config: Config) -> None:
    """Prints where the time of a training step goes; pins its process to one core."""
    bind_to_one_core()
    ours = Ours(config, pixels_for(config))
    for _ in range(3):  # warm-up
        ours.train()
    parts: dict[str, float] = collections.defaultdict(float)
    for scope, taken in profile(ours.train, ours.program.as_text() or ""):
        names = (part for part, pattern in PARTS.items() if re.search(pattern, scope))
        parts[next(names, "losses, optimizer, averages")] += taken
    print("\nour training step by operations (forward and backward), on one core")
    total = sum(parts.values())
    for part, milliseconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {part:<28}{milliseconds:8.1f} ms {milliseconds / total:6.1%}")


def config_of(name: str, batch_size: int | None = None, optimizer: str | None = None) -> Config:
    """Loads a config without the parts that are left out on both sides."""
    config = load_config(name)
    return config.with_fields(
        {
            "train.batch_size": batch_size or config.train.batch_size,
            "optimizer.name": optimizer or config.optimizer.name,
            "loss.perceptual": 0.0,
            "adversarial.augmentations": "",
        }
    )


def pixels_for(config: Config) -> np.ndarray:
    """Returns a batch of noise, uint8 [B, H, W, 3]."""
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def main() -> None:
    """Prints the table and the profile."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--config", default="configs/toon_faces.py", help="name or file, [:variants]"
    )
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--batch-size", type=int, help="default: that of the config")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="default: that of the config")
    parser.add_argument(
        "--torch-muon",
        action="store_true",
        help="add a row with PyTorch's own torch.optim.Muon",
    )
    options = parser.parse_args()
    config = config_of(options.config, options.batch_size, options.optimizer)
    if options.torch_muon and config.optimizer.name != "muon":
        parser.error("--torch-muon is compared with our Muon: use --optimizer=muon")
    if options.torch_muon and not hasattr(torch.optim, "Muon"):
        parser.error(f"--torch-muon: PyTorch {torch.__version__} has no {TORCH_MUON}")
    tasks = (*TASKS, TORCH_MUON) if options.torch_muon else TASKS
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # leaves GPU memory to PyTorch
    spawn = multiprocessing.get_context("spawn")

    def start(side: str, weights: Weights | None) -> Connection:
        connection, end = spawn.Pipe()
        process = spawn.Process(target=serve, args=(end, side, config, weights, tasks), daemon=True)
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
    batch = f"batches of {config.train.batch_size}"
    which = f"{options.config}, {config.optimizer.name}"
    print(f"{which}, {batch}, {weights.device}, {os.cpu_count()} CPU cores", flush=True)
    print_table(sides, tasks, options.turns)
    for connection in sides.values():
        connection.send(None)
    if weights.platform == "cpu":
        profiler = spawn.Process(target=print_profile, args=(config,))
        profiler.start()
        profiler.join()
        if profiler.exitcode:
            raise SystemExit(f"the profile failed with exit code {profiler.exitcode}")


if __name__ == "__main__":
    main()
