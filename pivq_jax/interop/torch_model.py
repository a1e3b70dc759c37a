"""The model in PyTorch, for weights of this package; images are float32 [B, 3, H, W] in [-1, 1].

    from pivq_jax.interop import torch_model

    model = torch_model.from_pretrained("toon_faces")
    images = model.decode(codes)  # int64 [B, N]

Needs PyTorch (`pip install torch`) and SciPy, which matches. The networks are written from
docs/architecture.md alone and share no code with those of Flax, which tests compare with them.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn


def layer_norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


def positions_2d(height: int, width: int, channels: int) -> Tensor:
    """[height * width, channels]."""
    quarter = channels // 4
    omega = 10_000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row = torch.arange(height).repeat_interleave(width)[:, None] * omega
    column = torch.arange(width).repeat(height)[:, None] * omega
    return torch.cat([row.sin(), column.sin(), row.cos(), column.cos()], dim=1).float()


def depth_to_space(grid: Tensor, factor: int) -> Tensor:
    """[B, h, w, factor * factor * C] -> [B, C, h * factor, w * factor]."""
    batch, height, width, channels = grid.shape
    x = grid.view(batch, height, width, factor, factor, channels // factor**2)
    x = x.permute(0, 5, 1, 3, 2, 4)  # [B, C, h, i, w, j]
    return x.reshape(batch, -1, height * factor, width * factor)


def space_to_depth(images: Tensor, factor: int) -> Tensor:
    """[B, C, h * factor, w * factor] -> [B, h, w, factor * factor * C]."""
    x = images.unflatten(2, (-1, factor)).unflatten(4, (-1, factor))  # [B, C, h, i, w, j]
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3)


class Attention(nn.Module):
    """Multi-head attention with normalized queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query_norm = layer_norm(width // heads)
        self.key_norm = layer_norm(width // heads)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[B, T, W], [B, S, W] -> [B, T, W]."""
        context = x if context is None else context
        query, key, value = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, W / heads]
            for y in (self.query(x), self.key(context), self.value(context))
        )
        y = F.scaled_dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        return self.out(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, ratio * width)
        self.out = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.hidden(x), approximate="tanh"))


class Block(nn.Module):
    """A transformer block; with `cross`, it also attends to a context."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, cross: bool = False) -> None:
        super().__init__()
        self.self_attention_norm = layer_norm(width)
        self.self_attention = Attention(width, heads)
        if cross:
            self.cross_attention_norm = layer_norm(width)
            self.cross_attention = Attention(width, heads)
        self.mlp_norm = layer_norm(width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.self_attention(self.self_attention_norm(x))
        if context is not None:
            x = x + self.cross_attention(self.cross_attention_norm(x), context)
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Patches and learned queries; the latents are those of the queries."""

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_codes: int,
        code_dim: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
    ) -> None:
        super().__init__()
        side = image_size // patch_size
        self.num_codes = num_codes
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.register_buffer("positions", positions_2d(side, side, width), persistent=False)
        self.queries = nn.Parameter(torch.randn(num_codes, width))
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.norm = layer_norm(width)
        self.latents = nn.Linear(width, code_dim)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> latents [B, `num_codes`, `code_dim`]."""
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([x, self.queries.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        latents = self.latents(self.norm(x[:, -self.num_codes :]))
        return F.layer_norm(latents, latents.shape[-1:], eps=1e-6)


class Components(nn.Module):
    """Principal components of images: their latents, and what code vectors stand for."""

    places: Tensor
    tags: Tensor

    def __init__(
        self, *, image_size: int, num_codes: int, num_components: int, code_dim: int
    ) -> None:
        super().__init__()
        self.side = max(side for side in range(1, 65) if image_size % side == 0)
        self.factor = image_size // self.side
        values, more = 3 * self.side**2, num_components - num_codes
        self.mean = nn.Parameter(torch.zeros(values), requires_grad=False)
        self.basis = nn.Parameter(torch.zeros(values, num_components), requires_grad=False)
        self.deviations = nn.Parameter(torch.ones(num_components), requires_grad=False)
        self.starts = [n + more * n**2 // num_codes**2 for n in range(num_codes + 1)]
        ends, bits = self.starts[1:], max(1, (num_codes - 1).bit_length())
        self.length = code_dim - bits
        places = torch.full((num_codes, self.length), num_components)
        for n, (start, end) in enumerate(zip(self.starts, ends, strict=False)):
            places[n, : end - start] = torch.arange(start, end)
        self.register_buffer("places", places, persistent=False)
        digits = torch.arange(num_codes)[:, None] >> torch.arange(bits) & 1
        tags = 8.0 * (2 * digits - 1)
        self.register_buffer("tags", tags, persistent=False)

    @property
    def scales(self) -> Tensor:
        """[N, 1]"""
        return self.deviations[self.starts[:-1]].clamp(min=1e-6)[:, None]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> latents [B, N, D]."""
        small = F.avg_pool2d(images, self.factor).permute(0, 2, 3, 1).flatten(1)
        values = F.pad((small - self.mean) @ self.basis, (0, 1))
        latents = values[:, self.places] / self.scales
        return torch.cat([latents, self.tags.expand(len(images), -1, -1)], dim=-1)

    def patterns(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, D] -> [B, N, N times the longest run] and [B, 3, H, W]."""
        bits = vectors[..., self.length :] > 0
        number = (bits * 2 ** torch.arange(bits.shape[-1], device=bits.device)).sum(-1)
        owner = F.one_hot(number, len(self.places)).float()
        values = vectors[..., None, : self.length] * self.scales
        spread = owner[..., None] * values
        white = spread / F.pad(self.deviations, (0, 1), value=1.0).clamp(min=1e-6)[self.places]
        total = spread.sum(1)[:, self.places < len(self.deviations)]
        small = (total @ self.basis.T + self.mean).clamp(-1, 1)
        small = small.unflatten(1, (self.side, self.side, 3)).permute(0, 3, 1, 2)
        large = small.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return white.flatten(2), large


class PatchOutput(nn.Module):
    """A linear layer from each cell of the grid to its patch."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.pixels = nn.Linear(width, 3 * patch_size**2)

    def forward(self, grid: Tensor, pattern: Tensor | None) -> Tensor:
        return depth_to_space(self.pixels(grid), self.patch_size)


class ConvOutput(nn.Module):
    """Convolutions at half the resolution of the image."""

    def __init__(self, patch_size: int, width: int, channels: int, pattern: bool) -> None:
        super().__init__()
        self.factor = patch_size // 2
        self.expand = nn.Linear(width, channels * self.factor**2)
        channels += 12 * pattern
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.pixels = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, grid: Tensor, pattern: Tensor | None) -> Tensor:
        x = depth_to_space(self.expand(grid), self.factor)
        if pattern is not None:
            x = torch.cat([x, space_to_depth(pattern, 2).permute(0, 3, 1, 2)], dim=1)
        x = x + self.conv(F.gelu(x, approximate="tanh"))
        x = self.pixels(F.gelu(x, approximate="tanh"))
        return depth_to_space(x.permute(0, 2, 3, 1), 2)


class LocalOutput(nn.Module):
    """A linear layer of its own for each cell of the grid."""

    def __init__(self, side: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.kernels = nn.Parameter(torch.zeros(side**2, width, 3 * patch_size**2))

    def forward(self, grid: Tensor) -> Tensor:
        cells = grid.flatten(1, 2).transpose(0, 1)
        x = torch.bmm(cells, self.kernels).transpose(0, 1).unflatten(1, grid.shape[1:3])
        return depth_to_space(x, self.patch_size)


class Decoder(nn.Module):
    """Blocks over the set of codes, and blocks over a grid of queries, which attend to it."""

    places: nn.Parameter | None
    positions: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_codes: int,
        code_dim: int,
        width: int,
        set_depth: int,
        depth: int,
        heads: int,
        ratio: int,
        output: str,
        output_channels: int,
        local_output: bool,
        positional: bool,
        pattern: bool,
    ) -> None:
        super().__init__()
        self.side, self.patch_size = image_size // patch_size, patch_size
        self.codes = nn.Linear(code_dim, width)
        self.places = nn.Parameter(torch.randn(num_codes, width)) if positional else None
        self.set_blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(set_depth))
        self.set_norm = layer_norm(width)
        if pattern:
            self.patches = nn.Linear(3 * patch_size**2, width)
        else:
            self.queries = nn.Parameter(0.02 * torch.randn(self.side**2, width))
        grid = positions_2d(self.side, self.side, width)
        self.register_buffer("positions", grid, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, cross=True) for _ in range(depth))
        self.norm = layer_norm(width)
        self.output = (
            ConvOutput(patch_size, width, output_channels, pattern)
            if output == "conv"
            else PatchOutput(patch_size, width)
        )
        self.local_output = LocalOutput(self.side, patch_size, width) if local_output else None

    def forward(self, vectors: Tensor, pattern: Tensor | None = None) -> Tensor:
        """[B, N, D] and, if the decoder adds to one, [B, 3, H, W] -> images [B, 3, H, W]."""
        if pattern is None:
            x = (self.queries + self.positions).expand(len(vectors), -1, -1)
        else:
            x = self.patches(space_to_depth(pattern, self.patch_size).flatten(1, 2))
            x = x + self.positions
        codes = self.codes(vectors)
        if self.places is not None:
            codes = codes + self.places
        for block in self.set_blocks:
            codes = block(codes)
        codes = self.set_norm(codes)
        for block in self.blocks:
            x = block(x, codes)
        grid = self.norm(x).unflatten(1, (self.side, self.side))
        images = self.output(grid, pattern)
        if pattern is not None:
            images = images + pattern
        if self.local_output is not None:
            images = images + self.local_output(grid)
        return images


class Quantized(NamedTuple):
    """What `Quantizer` returns."""

    vectors: Tensor  # [B, N, D], straight-through
    indices: Tensor  # int64 [B, N]
    codebook_loss: Tensor
    commitment_loss: Tensor


class Quantizer(nn.Module):
    """The codebook; `kind` is that of the config."""

    def __init__(self, codebook_size: int, code_dim: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.codebook = nn.Parameter(torch.randn(codebook_size, code_dim))

    @torch.no_grad()
    def assign(self, latents: Tensor) -> Tensor:
        """Latents [B, N, D] -> int64 [B, N]."""
        squares = latents.square().sum(-1, keepdim=True) + self.codebook.square().sum(-1)
        cost = (squares - 2 * latents @ self.codebook.T).clamp(min=0)
        return match(cost) if self.kind == "matching" else cost.argmin(-1)

    def forward(self, latents: Tensor) -> Quantized:
        indices = self.assign(latents)
        entries = self.codebook[indices]
        return Quantized(
            vectors=latents + (entries - latents).detach(),
            indices=indices,
            codebook_loss=(latents.detach() - entries).square().mean(),
            commitment_loss=(latents - entries.detach()).square().mean(),
        )


def match(cost: Tensor) -> Tensor:
    """The one-to-one assignment of least total cost of each [N, K] in [B, N, K]."""
    columns = [linear_sum_assignment(problem)[1] for problem in cost.cpu().double().numpy()]
    return torch.as_tensor(np.stack(columns), device=cost.device)


class PIVQ(nn.Module):
    """The whole model; its state dict has the names and layouts of `interop.to_torch`."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config` is the resolved config of a run, as its config.json holds it."""
        super().__init__()
        model, size = config["model"], config["data"]["image_size"]
        self.kind = config["quantizer"]["kind"]
        shared = {
            "image_size": size,
            "ratio": model["mlp_ratio"],
            **{n: model[n] for n in ("patch_size", "width", "heads")},
        }
        count, dim = model["num_codes"], model["code_dim"]
        latents = {"num_codes": count, "code_dim": dim}
        components, wide = model["encoder"] == "components", dim
        if components:
            wide = count * (dim - max(1, (count - 1).bit_length()))
            parts = model["num_components"]
            self.encoder: Components | Encoder = Components(
                image_size=size, num_components=parts, **latents
            )
        else:
            self.encoder = Encoder(**shared, **latents, depth=model["encoder_depth"])
        self.quantizer = Quantizer(config["quantizer"]["codebook_size"], dim, self.kind)
        self.decoder = Decoder(
            **shared,
            num_codes=count,
            code_dim=wide,
            set_depth=model["set_depth"],
            depth=model["decoder_depth"],
            output=model["output"],
            output_channels=model["output_channels"],
            local_output=model["local_output"],
            positional=self.kind == "positional",
            pattern=components,
        )
        self.apply(_initialise)

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> codes int64 [B, N]."""
        indices = self.quantizer.assign(self.encoder(images))
        return indices if self.kind == "positional" else indices.sort(-1).values

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, N] -> images [B, 3, H, W], clipped."""
        codes = codes if self.kind == "positional" else codes.sort(-1).values
        return self.decode_vectors(self.quantizer.codebook[codes]).clamp(-1, 1)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """[B, N, D] -> images [B, 3, H, W]."""
        if isinstance(self.encoder, Components):
            return self.decoder(*self.encoder.patterns(vectors))
        return self.decoder(vectors)


def from_pretrained(where: str | Path) -> PIVQ:
    """Opens a published model or a file of `pivq_jax.convert`, in evaluation mode, on the CPU.

    `where` is a name or directory, as for `pivq_jax.from_pretrained`, or a *.safetensors file.
    Raises InputError as that does.
    """
    from pivq_jax.common.hub import WEIGHTS, check_published, find_pretrained
    from pivq_jax.interop.safetensors_file import read_model
    from pivq_jax.interop.weights import to_torch

    path = Path(where).expanduser()
    if path.suffix != ".safetensors":
        directory = find_pretrained(where)
        check_published(directory)
        path = directory / WEIGHTS
    params, description = read_model(path)
    model = PIVQ(description["config"])
    model.load_state_dict({name: torch.from_numpy(x) for name, x in to_torch(params).items()})
    return model.eval()


def _initialise(module: nn.Module) -> None:
    """LeCun normal, truncated at two standard deviations; biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        fan_in = module.weight[0].numel()
        # A normal truncated at 2 standard deviations has 0.8796 of its standard deviation left.
        deviation = math.sqrt(1 / fan_in) / 0.87962566
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
