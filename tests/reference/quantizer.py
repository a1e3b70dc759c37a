"""Quantization with SciPy's assignment, and recombination of code sets, in PyTorch."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn


class Quantized(NamedTuple):
    vectors: Tensor  # [B, N, D], straight-through
    indices: Tensor  # int64 [B, N]
    codebook_loss: Tensor
    commitment_loss: Tensor


def places(count: int, size: int) -> Tensor:
    """The vectors [count, size] that say which latent an entry belongs to."""
    return torch.from_numpy(np.random.RandomState(0).normal(size=(count, size))).float()


class Quantizer(nn.Module):
    """`count` latents, each with a code at every stage; entries begin with the latent's place."""

    places: Tensor  # [count, D - size of a latent]

    def __init__(self, codebook_size: int, code_dim: int, kind: str, stages: int, count: int):
        super().__init__()
        self.kind, self.stages = kind, stages
        self.codebook = nn.Parameter(torch.randn(codebook_size, code_dim))
        size = 0 if stages == 1 else code_dim // 2
        self.register_buffer("places", places(count, size), persistent=False)

    @torch.no_grad()
    def assign(self, latents: Tensor) -> Tensor:
        """Latents [B, N / stages, ...] -> int64 [B, N]."""
        return self._in_stages(latents)[0]

    def _in_stages(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Indices, their targets [B, N, D], and what is left over of the latents."""
        left, indices, targets = latents, [], []
        each = len(self.codebook) // self.stages
        for stage, entries in enumerate(self.codebook.split(each)):
            target = self._at_places(left)
            squares = target.square().sum(-1, keepdim=True) + entries.square().sum(-1)
            cost = (squares - 2 * target @ entries.T).clamp(min=0)
            found = match(cost) if self.kind == "matching" else cost.argmin(-1)
            left = left - entries[found][..., self.places.shape[1] :]
            indices.append(found + stage * each)
            targets.append(target)
        return torch.cat(indices, 1), torch.cat(targets, 1), left

    def _at_places(self, latents: Tensor) -> Tensor:
        return torch.cat([self.places.expand(len(latents), -1, -1), latents], -1)

    def forward(self, latents: Tensor) -> Quantized:
        """With several stages, no gradient reaches the latents."""
        latents = latents if self.stages == 1 else latents.detach()
        with torch.no_grad():
            indices, targets, left = self._in_stages(latents)
        entries = self.codebook[indices]
        first = F.pad(latents, (self.places.shape[1], 0))
        through = F.pad(first, (0, 0, 0, indices.shape[1] - latents.shape[1]))
        return Quantized(
            vectors=through + (entries - through).detach(),
            indices=indices,
            codebook_loss=(targets - entries).square().mean(),
            commitment_loss=(latents - (latents - left).detach()).square().mean(),
        )

    def add_noise(self, latents: Tensor, noise: float, drawn: Tensor) -> Tensor:
        """Vectors [B, N / stages, D] before there is a codebook; `drawn` is shaped as `latents`."""
        return self._at_places(latents + noise * drawn)


def match(cost: Tensor) -> Tensor:
    """The one-to-one assignment of least total cost of each [N, K] in [B, N, K]."""
    columns = [linear_sum_assignment(problem)[1] for problem in cost.cpu().double().numpy()]
    return torch.as_tensor(np.stack(columns), device=cost.device)


@torch.no_grad()
def recombine(
    codes_a: Tensor,
    codes_b: Tensor,
    codebook: Tensor,
    directions: Tensor,
    fraction: float,
    kind: str,
    places: Tensor | None = None,
) -> Tensor:
    """Exchange the paired codes of A that come first along a direction for their partners in B.

    Codes that both hold stay. The rest is paired at the least total squared distance, and of P
    pairs round(fraction * P) are exchanged, those whose mean entry comes first along `directions`
    [B, D]. Given `places` of a model with several stages, codes are paired within them as far as
    possible, and all pairs of the places that come first in their grid are exchanged, along
    `directions` [B, 2].
    """
    if places is not None:
        of = torch.cdist(codebook[:, : places.shape[1]], places).argmin(-1)
    if kind == "positional":
        partners = codes_b
    else:
        codes_a, codes_b = codes_a.sort(-1).values, codes_b.sort(-1).values
        # Without an array [B, N, N, D].
        pairs = codebook[codes_a], codebook[codes_b]
        cost = torch.cdist(*pairs, compute_mode="donot_use_mm_for_euclid_dist").square()
        if places is not None:
            elsewhere = of[codes_a][:, :, None] != of[codes_b][:, None]
            cost = cost + elsewhere * cost.amax((1, 2), keepdim=True)
        same = (codes_a[:, :, None] == codes_b[:, None]) & (
            _copy(codes_a)[:, :, None] == _copy(codes_b)[:, None]
        )
        taken = same.any(-1, keepdim=True) | same.any(-2, keepdim=True)
        cost = cost.masked_fill(taken, torch.inf).masked_fill(same, 0.0)
        partners = codes_b.gather(1, match(cost))
    paired = codes_a != partners
    if places is None:
        points = (codebook[codes_a] + codebook[partners]) / 2
    else:
        side = math.ceil(math.sqrt(len(places)))
        points = torch.stack([of[codes_a] // side, of[codes_a] % side], -1).float()
    order = (points * directions[:, None]).sum(-1)
    rank = order.masked_fill(~paired, torch.inf).argsort(-1).argsort(-1)
    exchanged = rank < (fraction * paired.sum(-1, keepdim=True)).round()
    if places is not None:
        exchanged = order <= order.masked_fill(~exchanged, -torch.inf).amax(-1, keepdim=True)
    codes = torch.where(exchanged, partners, codes_a)
    return codes if kind == "positional" else codes.sort(-1).values


def _copy(codes: Tensor) -> Tensor:
    """How many equal codes come before each, [B, N] -> [B, N]."""
    return (codes[:, :, None] == codes[:, None]).tril(-1).sum(-1)
