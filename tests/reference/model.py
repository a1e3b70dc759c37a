"""Encoder, decoder and the whole model in PyTorch. Images are [B, 3, H, W] in [-1, 1] here."""

import itertools
import math

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference import quantizer


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


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
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
    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.hidden = nn.Linear(width, ratio * width)
        self.out = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.hidden(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: int, cross: bool = False):
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


def cosine_transform(size: int, count: int) -> Tensor:
    """The first patterns [size * size, 3, count] of a patch in brightness and two colours."""
    waves = torch.from_numpy(scipy.fft.idct(np.eye(size), axis=0, norm="ortho"))  # [pixel, wave]
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    axes = F.normalize(axes, dim=1)
    # Colours begin sqrt(count) waves later, or as late as leaves room for both of their means.
    room = [f for f in range(2 * size) if (f + 1) * (f + 2) // 2 + 2 <= count]
    later = min(round(math.sqrt(count)), max(room, default=0))
    keys = [
        (u + v + (later if axis else 0), axis, u, v)
        for axis, u, v in itertools.product(range(3), range(size), range(size))
    ]
    patterns = [
        torch.einsum("y,x,c->yxc", waves[:, u], waves[:, v], axes[axis]).flatten(0, 1)
        for _, axis, u, v in sorted(keys)[:count]
    ]
    return torch.stack(patterns, -1).float()


class Encoder(nn.Module):
    queries: nn.Parameter | None

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_codes: int,
        latents: str,
        code_dim: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
        stages: int,
    ) -> None:
        super().__init__()
        side = image_size // patch_size
        self.num_codes, self.side, self.stages = num_codes, side, stages
        self.register_buffer("transform", cosine_transform(patch_size, code_dim), persistent=False)
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.register_buffer("positions", positions_2d(side, side, width), persistent=False)
        self.queries = nn.Parameter(torch.randn(num_codes, width)) if latents == "queries" else None
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.norm = layer_norm(width)
        tokens = min(num_codes, side**2) if latents == "patches" else num_codes
        self.latents = nn.Linear(width, code_dim * num_codes // tokens)
        self.code_dim = code_dim

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> latents [B, `num_codes`, `code_dim`]."""
        p = self.patches.kernel_size
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        if self.queries is not None:
            x = torch.cat([x, self.queries.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        if self.queries is not None:
            x = x[:, -self.num_codes :]
        elif self.num_codes < self.side**2:
            grid = x.transpose(1, 2).unflatten(2, (self.side, self.side))
            x = F.avg_pool2d(grid, round(self.side / self.num_codes**0.5)).flatten(2).mT
        latents = self.latents(self.norm(x)).reshape(len(x), self.num_codes, self.code_dim)
        if self.stages > 1:
            pixels = F.unfold(images, p, stride=p).unflatten(1, (3, -1))  # [B, 3, p * p, patches]
            return torch.einsum("bcpn,pcd->bnd", pixels, self.transform) + latents
        return F.layer_norm(latents, latents.shape[-1:], eps=1e-6)


class PatchOutput(nn.Module):
    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.patch_size = patch_size
        self.pixels = nn.Linear(width, 3 * patch_size**2)

    def forward(self, grid: Tensor) -> Tensor:
        return depth_to_space(self.pixels(grid), self.patch_size)


class ConvOutput(nn.Module):
    def __init__(self, patch_size: int, width: int, channels: int):
        super().__init__()
        self.factor = patch_size // 2
        self.expand = nn.Linear(width, channels * self.factor**2)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.pixels = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, grid: Tensor) -> Tensor:
        x = depth_to_space(self.expand(grid), self.factor)
        x = x + self.conv(F.gelu(x, approximate="tanh"))
        x = self.pixels(F.gelu(x, approximate="tanh"))
        return depth_to_space(x.permute(0, 2, 3, 1), 2)


class LocalOutput(nn.Module):
    def __init__(self, side: int, patch_size: int, width: int):
        super().__init__()
        self.patch_size = patch_size
        self.kernels = nn.Parameter(torch.zeros(side**2, width, 3 * patch_size**2))

    def forward(self, grid: Tensor) -> Tensor:
        cells = grid.flatten(1, 2).transpose(0, 1)
        x = torch.bmm(cells, self.kernels).transpose(0, 1).unflatten(1, grid.shape[1:3])
        return depth_to_space(x, self.patch_size)


class Decoder(nn.Module):
    places: nn.Parameter | None
    positions: Tensor
    transform: Tensor
    known: Tensor

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
        stages: int,
    ) -> None:
        super().__init__()
        self.side, self.patch_size = image_size // patch_size, patch_size
        self.stages, self.latent_dim = stages, code_dim if stages == 1 else code_dim // 2
        transform = cosine_transform(patch_size, self.latent_dim)
        self.register_buffer("transform", transform, persistent=False)
        known = quantizer.places(num_codes // stages, code_dim - self.latent_dim)
        self.register_buffer("known", known, persistent=False)
        self.codes = nn.Linear(self.latent_dim, width)
        self.places = nn.Parameter(torch.randn(num_codes, width)) if positional else None
        self.set_blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(set_depth))
        self.set_norm = layer_norm(width) if stages == 1 else None
        self.queries = nn.Parameter(0.02 * torch.randn(self.side**2, width))
        grid = positions_2d(self.side, self.side, width)
        self.register_buffer("positions", grid, persistent=False)
        cross = stages == 1
        self.blocks = nn.ModuleList(Block(width, heads, ratio, cross) for _ in range(depth))
        self.norm = layer_norm(width)
        self.output = (
            ConvOutput(patch_size, width, output_channels)
            if output == "conv"
            else PatchOutput(patch_size, width)
        )
        self.local_output = LocalOutput(self.side, patch_size, width) if local_output else None

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, N, D] -> images [B, 3, H, W]."""
        x = (self.queries + self.positions).expand(len(vectors), -1, -1)
        codes = None
        if self.set_norm is None:
            latents = self._sums(vectors)
            x = x + self.codes(latents)
        else:
            codes = self.codes(vectors)
            if self.places is not None:
                codes = codes + self.places
            for block in self.set_blocks:
                codes = block(codes)
            codes = self.set_norm(codes)
        for block in self.blocks:
            x = block(x, codes)
        grid = self.norm(x).unflatten(1, (self.side, self.side))
        images = self.output(grid)
        if self.local_output is not None:
            images = images + self.local_output(grid)
        if self.stages > 1:
            patches = (latents @ self.transform.flatten(0, 1).T).unflatten(1, grid.shape[1:3])
            images = images + depth_to_space(patches, self.patch_size)
        return images

    def _sums(self, vectors: Tensor) -> Tensor:
        """The sum of the values of the codes of each place, [B, N / stages, size of a latent]."""
        place, values = vectors[..., : -self.latent_dim], vectors[..., -self.latent_dim :]
        owner = torch.cdist(place.detach(), self.known).argmin(-1, keepdim=True)
        sums = values.new_zeros(len(values), len(self.known), self.latent_dim)
        return sums.scatter_add(1, owner.expand_as(values), values)


class PIVQ(nn.Module):
    def __init__(self, config: dict):
        """`config` is the resolved config of a run, as its config.json holds it."""
        super().__init__()
        model, size = config["model"], config["data"]["image_size"]
        self.kind = config["quantizer"]["kind"]
        shared = {
            "image_size": size,
            "ratio": model["mlp_ratio"],
            **{n: model[n] for n in ("patch_size", "width", "heads")},
        }
        count, dim, stages = model["num_codes"], model["code_dim"], model.get("stages", 1)
        self.encoder = Encoder(
            **shared,
            num_codes=count // stages,
            code_dim=dim if stages == 1 else dim // 2,
            latents=model["latents"],
            stages=stages,
            depth=model["encoder_depth"],
        )
        self.quantizer = quantizer.Quantizer(
            config["quantizer"]["codebook_size"], dim, self.kind, stages, count // stages
        )
        self.decoder = Decoder(
            **shared,
            num_codes=count,
            code_dim=dim,
            stages=stages,
            set_depth=model["set_depth"],
            depth=model["decoder_depth"],
            output=model["output"],
            output_channels=model["output_channels"],
            local_output=model["local_output"],
            positional=self.kind == "positional",
        )
        self.apply(_initialise)

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> codes int64 [B, N]."""
        indices = self.quantizer.assign(self.encoder(images))
        return indices if self.kind == "positional" else indices.sort(-1).values

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, N] -> images [B, 3, H, W], clipped."""
        codes = codes if self.kind == "positional" else codes.sort(-1).values
        return self.decoder(self.quantizer.codebook[codes]).clamp(-1, 1)


def _initialise(module: nn.Module) -> None:
    """LeCun normal, truncated at two standard deviations; biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        fan_in = module.weight[0].numel()
        # A normal truncated at 2 standard deviations has 0.8796 of its standard deviation left.
        deviation = math.sqrt(1 / fan_in) / 0.87962566
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
