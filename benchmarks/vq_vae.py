"""A convolutional VQ-VAE in PyTorch, the peer of `benchmarks.faces_peers`.

The usual model (van den Oord et al. 2017, arXiv 1711.00937): strided convolutions down to a grid of
8x8 latents, each replaced by the nearest of 512 entries, and transposed convolutions back, with
normalized residual blocks as in VQ-GAN. The quantizer is `VectorQuantize` of
vector-quantize-pytorch as its authors set it (rotation trick), with entries that are moving
averages, started by k-means on the first batch; unused ones are replaced by latents. The model sees
the same batches as PI-VQ. Its loss is that of reconstruction, at the weights of PI-VQ's config,
plus the commitment. AdamW's rate falls to 0 over the time it is given. The networks have the width
with which they have, with their codebook, most nearly as many parameters as PI-VQ.

`metrics.json` has the names of an evaluation (docs/metrics.md), computed by the same functions.
"""

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import lpips as authors
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from vector_quantize_pytorch import VectorQuantize

from benchmarks.common import lpips_of, pixels_of
from pivq_jax.common.files import write_json
from pivq_jax.common.psnr import psnr
from pivq_jax.config import Config
from pivq_jax.data.pipeline import train_batches
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.frechet import frechet_distance
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.losses.perceptual import load_lpips
from pivq_jax.sampling import CodeSpace, capacity
from pivq_jax.training.build import dataset_from_config

ENTRIES = 512  # K
CODE_DIM = 64
DOWN = 8  # pixels of a side for each place of the grid
DECAY = 0.99  # of the moving averages of entries
DEAD = 0.05  # an entry used less than this fraction of the mean is replaced, as in PI-VQ
RATE = 1e-3  # AdamW's peak
WARM_UP = 0.025  # of the time
TOLERANCE = 0.2  # of the number of parameters


class Residual(nn.Module):
    """Two convolutions of normalized features, added to them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)))
        return x + y


class VQVAE(nn.Module):
    """The autoencoder; images are float32 [B, 3, H, W] in [-1, 1].

    Args:
        channels: width of both networks, a multiple of 8.
        batch_codes: number of codes in a batch of training images.
        commitment: weight of the commitment loss.
    """

    def __init__(self, channels: int, batch_codes: int = ENTRIES, commitment: float = 0.25) -> None:
        super().__init__()
        few = channels // 2
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, few, 4, 2, 1), nn.SiLU(), nn.Conv2d(few, channels, 4, 2, 1)),
            *(Residual(channels), nn.Conv2d(channels, channels, 4, 2, 1)),
            *(Residual(channels), Residual(channels), nn.GroupNorm(8, channels), nn.SiLU()),
            nn.Conv2d(channels, CODE_DIM, 1),
        )
        self.decoder = nn.Sequential(
            *(nn.Conv2d(CODE_DIM, channels, 3, padding=1), Residual(channels), Residual(channels)),
            *(nn.ConvTranspose2d(channels, channels, 4, 2, 1), Residual(channels)),
            *(nn.ConvTranspose2d(channels, few, 4, 2, 1), nn.SiLU()),
            nn.ConvTranspose2d(few, 3, 4, 2, 1),
        )
        self.quantizer = VectorQuantize(
            dim=CODE_DIM,
            codebook_size=ENTRIES,
            decay=DECAY,
            kmeans_init=True,
            commitment_weight=commitment,
            threshold_ema_dead_code=DEAD * batch_codes / ENTRIES,
            accept_image_fmap=True,
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns reconstructions [B, 3, H, W] and the weighted commitment loss []."""
        vectors, _, commitment = self.quantizer(self.encoder(images))
        return self.decoder(vectors), commitment.sum()

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> codes int64 [B, places], row by row; in evaluation mode."""
        return self.quantizer(self.encoder(images))[1].flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, places] -> images [B, 3, H, W]."""
        side = math.isqrt(codes.shape[1])
        vectors = self.quantizer.get_output_from_indices(codes.unflatten(1, (side, side)))
        return self.decoder(vectors)

    def num_parameters(self) -> int:
        """The number of weights, and of numbers in the codebook."""
        return sum(p.numel() for p in self.parameters()) + ENTRIES * CODE_DIM


def channels_for(parameters: int) -> int:
    """Returns the width with which a model has that many parameters, within `TOLERANCE`."""

    def apart(channels: int) -> float:
        with torch.device("meta"):
            return abs(VQVAE(channels).num_parameters() / parameters - 1)

    channels = min(range(16, 513, 8), key=apart)
    if apart(channels) > TOLERANCE:
        raise SystemExit(f"no VQ-VAE has {parameters:,} parameters within {TOLERANCE:.0%}")
    return channels


def torch_lpips(network: str, path: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The authors' LPIPS, with their heads and the backbone that this project trains with.

    `path` is the file of its weights, see `load_lpips`. Returns a function of two batches
    [B, 3, H, W] in [-1, 1], of their distances.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old arguments of torchvision
        module = authors.LPIPS(net=network, pnet_rand=True, verbose=False)
    backbone = load_lpips(network, path)["backbone"]
    layers = [each for each in module.net.modules() if isinstance(each, nn.Conv2d)]
    if len(layers) != len(backbone):
        raise SystemExit(f"{network} has {len(backbone)} layers here and {len(layers)} in lpips")
    with torch.no_grad():
        for i, layer in enumerate(layers):
            kernel, bias = (np.array(backbone[f"conv_{i}"][name]) for name in ("kernel", "bias"))
            layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            assert layer.bias is not None
            layer.bias.copy_(torch.from_numpy(bias))
    module.requires_grad_(False)
    return convert_conv2d_weight_memory_format(module, torch.channels_last)


def to_torch(images: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1], with channels last in memory."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 127.5 - 1


def train(model: VQVAE, config: Config, source: Source, seconds: float) -> tuple[int, float]:
    """Trains for a time; returns the number of steps and the seconds they took."""
    loss, optimizer_config = config.loss, config.optimizer
    distance = torch_lpips(loss.perceptual_network, loss.perceptual_weights)
    optimizer = torch.optim.AdamW(
        model.parameters(), RATE, (0.9, 0.99), weight_decay=optimizer_config.weight_decay
    )
    batches = train_batches(
        source, batch_size=config.train.batch_size, seed=config.seed, flip=config.data.flip
    )
    steps, started = 0, time.perf_counter()
    with contextlib.closing(batches):
        for batch in batches:
            passed = time.perf_counter() - started
            if passed >= seconds:
                break
            share = passed / seconds
            rate = RATE * min(1.0, share / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = rate
            images = to_torch(batch["image"])
            made, total = model(images)
            error = made - images
            total = total + loss.l1 * error.abs().mean() + loss.l2 * error.square().mean()
            if loss.perceptual:
                shift = torch.randint(0, loss.perceptual_shift + 1, (2,)).tolist()
                pair = (x.roll(shift, (2, 3)) for x in (made, images))
                total = total + loss.perceptual * distance(*pair).mean()
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), optimizer_config.clip_norm)
            optimizer.step()
            steps += 1
            if steps % config.train.log_every == 0:
                print(
                    f"VQ-VAE: step {steps:,}, {passed:.0f} s, loss {float(total.detach()):.4f}",
                    flush=True,
                )
    return steps, time.perf_counter() - started


@torch.inference_mode()
def reconstruct(model: VQVAE, images: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes int64 [M, places] of uint8 images [M, H, W, 3], and the images of these codes."""
    codes, rebuilt = [], []
    for i in range(0, len(images), batch_size):
        codes.append(model.encode(to_torch(images[i : i + batch_size])))
        made = model.decode(codes[-1]).clamp(-1, 1)
        rebuilt.append(((made + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1))
    return torch.cat(codes).numpy(), torch.cat(rebuilt).contiguous().numpy()


def run(config: Config, seconds: float, workdir: Path) -> dict[str, Any]:
    """Trains and evaluates a model on one thread, unless that is already done.

    The config is that of PI-VQ: its data, batches, losses, number of parameters and evaluation.
    Returns `metrics.json` of the workdir.
    """
    path = workdir / "metrics.json"
    if path.exists():
        return json.loads(path.read_text())
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    dataset, batch_size = dataset_from_config(config), config.evaluate.batch_size
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(model_shapes(config)))
    grid_places = (config.data.image_size // DOWN) ** 2
    model = VQVAE(
        channels_for(parameters), config.train.batch_size * grid_places, config.loss.commitment
    )
    convert_conv2d_weight_memory_format(model, torch.channels_last)  # a tenth faster
    steps, spent = train(model.train(), config, dataset.train, seconds)
    model.eval()

    test = pixels_of(dataset.test)
    codes, rebuilt = reconstruct(model, test, batch_size)
    extractor = feature_extractor("vgg", batch_size=batch_size)
    metrics: dict[str, Any] = {
        "step": steps,
        "parameters": model.num_parameters(),
        "train_seconds": spent,
        "psnr": float(psnr(rebuilt, test, 255.0).mean()),
        "lpips": lpips_of(rebuilt, test, batch_size),
        **capacity(CodeSpace(codes.shape[1], ENTRIES, "positional"), codes),
        "rfid": frechet_distance(extractor.extract(test), extractor.extract(rebuilt)),
        "real_images": len(test),
    }
    write_json(path, metrics)
    return metrics
