"""A convolutional VQ-VAE in PyTorch, the peer of `benchmarks.baselines`.

The usual model (van den Oord et al. 2017, arXiv 1711.00937): strided convolutions down to a grid of
latents (8x8 of 64 pixels), each replaced by the nearest of 512 entries, and transposed convolutions
back, with normalized residual blocks as in VQ-GAN. `Form` has other grids, and residual codes (Lee
et al. 2022, arXiv 2203.01941). The quantizer is `VectorQuantize` or `ResidualVQ` of
vector-quantize-pytorch as its authors set it (rotation trick), with entries that are moving
averages, started by k-means on the first batch; unused ones are replaced by latents. The model sees
the same batches as PI-VQ, has most nearly as many parameters, and the same loss of reconstruction,
plus the commitment. AdamW's rate falls to 0 over the time it is given.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import lpips as authors
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from pivq_jax.config import Config
from pivq_jax.data import Dataset
from pivq_jax.data.pipeline import train_batches
from pivq_jax.data.sources import Source
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.losses.lpips_weights import load_lpips

ENTRIES = 512  # K
CODE_DIM = 64
MOST_ENTRIES = 8_192  # of a codebook; with more bits a place, the grid is finer
LEVEL_BITS = 8  # about, of a code of several of a place
DECAY = 0.99  # of the moving averages of entries
DEAD = 0.05  # an entry used less than this fraction of the mean is replaced, as in PI-VQ
RATE = 1e-3  # AdamW's peak
WARM_UP = 0.025  # of the time
TOLERANCE = 0.2  # of the number of parameters


class Form(NamedTuple):
    """The codes of a model."""

    down: int = 8  # pixels of a side for each place of the grid, 8 or 4
    entries: int = ENTRIES  # K
    levels: int = 1  # codes of a place, each for what those before left over

    def bits(self, image_size: int) -> float:
        """Bits of an image with this many pixels of a side."""
        return (image_size // self.down) ** 2 * self.levels * math.log2(self.entries)


GRID = Form()


def form_of(bits: int, image_size: int, residual: bool) -> Form:
    """The codes that have at most these bits an image, on the coarsest grid that can have them."""
    down = 8
    each = bits / (image_size // down) ** 2
    if residual:
        levels = max(2, round(each / LEVEL_BITS))
        return Form(down, int(2 ** (each / levels) + 1e-6), levels)
    if each > math.log2(MOST_ENTRIES):
        down, each = 4, each / 4
    return Form(down, int(2**each + 1e-6))


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
        form: its codes.
    """

    def __init__(
        self,
        channels: int,
        batch_codes: int = ENTRIES,
        commitment: float = 0.25,
        form: Form = GRID,
    ) -> None:
        super().__init__()
        few, coarse = channels // 2, form.down == 8
        down = [Residual(channels), nn.Conv2d(channels, channels, 4, 2, 1)] if coarse else []
        up = [nn.ConvTranspose2d(channels, channels, 4, 2, 1), Residual(channels)] if coarse else []
        self.form = form
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, few, 4, 2, 1), nn.SiLU(), nn.Conv2d(few, channels, 4, 2, 1)),
            *down,
            *(Residual(channels), Residual(channels), nn.GroupNorm(8, channels), nn.SiLU()),
            nn.Conv2d(channels, CODE_DIM, 1),
        )
        self.decoder = nn.Sequential(
            *(nn.Conv2d(CODE_DIM, channels, 3, padding=1), Residual(channels), Residual(channels)),
            *up,
            *(nn.ConvTranspose2d(channels, few, 4, 2, 1), nn.SiLU()),
            nn.ConvTranspose2d(few, 3, 4, 2, 1),
        )
        options: dict[str, Any] = {
            "dim": CODE_DIM,
            "codebook_size": form.entries,
            "decay": DECAY,
            "kmeans_init": True,
            "commitment_weight": commitment,
            "threshold_ema_dead_code": DEAD * batch_codes / form.entries,
        }
        self.quantizer: nn.Module = (
            VectorQuantize(**options)
            if form.levels == 1
            else ResidualVQ(num_quantizers=form.levels, **options)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns reconstructions [B, 3, H, W] and the weighted commitment loss []."""
        vectors, _, commitment = self.quantizer(self._vectors(images))
        return self._decode(vectors), commitment.sum()

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> codes int64 [B, places, levels], row by row; in evaluation mode."""
        codes = self.quantizer(self._vectors(images))[1]
        return codes.reshape(len(codes), -1, self.form.levels)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, places, levels] -> images [B, 3, H, W]."""
        given = codes[..., 0] if self.form.levels == 1 else codes
        vectors: Tensor = self.quantizer.get_output_from_indices(given)  # type: ignore[operator]
        return self._decode(vectors)

    def _vectors(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, places, CODE_DIM]."""
        return self.encoder(images).flatten(2).transpose(1, 2)

    def _decode(self, vectors: Tensor) -> Tensor:
        """[B, places, CODE_DIM] -> [B, 3, H, W]."""
        side = math.isqrt(vectors.shape[1])
        return self.decoder(vectors.transpose(1, 2).unflatten(2, (side, side)))

    def num_parameters(self) -> int:
        """The number of weights, and of numbers in the codebook."""
        return sum(p.numel() for p in self.parameters()) + (
            self.form.levels * self.form.entries * CODE_DIM
        )


def channels_for(parameters: int, form: Form = GRID) -> int:
    """Returns the width with which a model has that many parameters, within `TOLERANCE`."""

    def apart(channels: int) -> float:
        with torch.device("meta"):
            return abs(VQVAE(channels, form=form).num_parameters() / parameters - 1)

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
def encode(model: VQVAE, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Codes int64 [M, places, levels] of uint8 images [M, H, W, 3]."""
    parts = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    return torch.cat([model.encode(to_torch(part)) for part in parts]).numpy()


@torch.inference_mode()
def decode(model: VQVAE, codes: np.ndarray, batch_size: int) -> np.ndarray:
    """The images of codes, uint8 [M, H, W, 3]."""
    parts = []
    for i in range(0, len(codes), batch_size):
        made = model.decode(torch.from_numpy(codes[i : i + batch_size])).clamp(-1, 1)
        parts.append(((made + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1))
    return torch.cat(parts).contiguous().numpy()


def trained(
    config: Config, dataset: Dataset, form: Form, seconds: float
) -> tuple[VQVAE, dict[str, Any]]:
    """Trains a model on one thread, in PI-VQ's conditions; returns it, and figures by name."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(model_shapes(config)))
    places = (config.data.image_size // form.down) ** 2
    width = channels_for(parameters, form)
    model = VQVAE(width, config.train.batch_size * places, config.loss.commitment, form)
    convert_conv2d_weight_memory_format(model, torch.channels_last)  # a tenth faster
    steps, spent = train(model.train(), config, dataset.train, seconds)
    figures = {"step": steps, "parameters": model.num_parameters(), "train_seconds": spent}
    return model.eval(), figures
