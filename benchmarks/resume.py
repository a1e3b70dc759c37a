"""Checks that a training that is stopped and continued ends, bit for bit, like an unbroken one.

    python -m benchmarks.resume [--config=configs/toon_faces.py:smoke]

Trains the config once without a break and once with Ctrl-C after half of the steps, each time in a
new process. Prints hashes of the parameters and of the whole state, with averages and moments of
the optimizers, at the end of both. Fails if they differ. On a GPU, XLA is asked for deterministic
operations, as docs/scaling.md says.
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import parser_for
from pivq_jax.common.files import cache_folder
from pivq_jax.common.parallel import make_mesh
from pivq_jax.common.stopping import Interrupted
from pivq_jax.config import Config, load_config
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.loop import train
from pivq_jax.training.steps import Steps


def press_ctrl_c(*_: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """An evaluator that measures nothing and sends this process SIGINT."""
    signal.raise_signal(signal.SIGINT)
    return {}, {}


def run_training(config: Config, workdir: Path, stops: bool) -> None:
    """Trains to the end or, if it `stops`, until the first evaluation is due."""
    jax.config.update("jax_compilation_cache_dir", str(cache_folder("compilation")))  # as main
    try:
        train(config, workdir, press_ctrl_c if stops else None)
    except Interrupted as interrupted:
        print(interrupted, flush=True)
    else:
        if stops:
            raise RuntimeError("Ctrl-C did not stop the training")


def digest(tree: Any) -> str:
    """Returns the first half of the SHA-256 of all arrays of a tree with their paths."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:32]


def main() -> None:
    """Trains, compares and prints."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", default="configs/toon_faces.py:smoke")
    options = parser.parse_args()
    config = load_config(options.config)
    config = config.with_fields({"evaluate.every": config.train.steps // 2})
    flags = os.environ.get("XLA_FLAGS", "")  # read by the processes that train
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()

    hashes: dict[str, tuple[str, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, parts in {"whole": (False,), "continued": (True, False)}.items():
            workdir = Path(folder) / name
            for stops in parts:
                process = multiprocessing.get_context("spawn").Process(
                    target=run_training, args=(config, workdir, stops)
                )
                process.start()
                process.join()
                if process.exitcode:
                    sys.exit(f"training failed with exit code {process.exitcode}")
        # JAX reserves most of a GPU's memory, so this process uses it only now.
        mesh = make_mesh()
        blank = jax.eval_shape(Steps(config, mesh).create)
        for name in ("whole", "continued"):
            with Checkpoints(Path(folder) / name, read_only=True) as checkpoints:
                state, _ = checkpoints.restore(blank, mesh, step=config.train.steps)
            hashes[name] = (digest(state.params), digest(state))
    print(f"{config.name}, {config.train.steps} steps, {jax.devices()[0].device_kind}")
    print(f"{'':<10} {'parameters':<32} whole state")
    for name, values in hashes.items():
        print(f"{name:<10}", *values)
    if hashes["whole"] != hashes["continued"]:
        sys.exit("the two trainings differ")
    print("equal bit for bit")


if __name__ == "__main__":
    main()
