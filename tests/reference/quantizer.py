"""Quantization with SciPy's assignment, and recombination of code sets, in PyTorch."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn


class Quantized(NamedTuple):
    vectors: Tensor  # [B, N, D], straight-through
    indices: Tensor  # int64 [B, N]
    codebook_loss: Tensor
    commitment_loss: Tensor


class Quantizer(nn.Module):
    def __init__(self, codebook_size: int, code_dim: int, kind: str):
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


@torch.no_grad()
def recombine(
    codes_a: Tensor,
    codes_b: Tensor,
    codebook: Tensor,
    directions: Tensor,
    fraction: float,
    kind: str,
) -> Tensor:
    """Exchange the paired codes of A that come first along a direction for their partners in B.

    Codes that both hold stay. The rest is paired at the least total squared distance, and of P
    pairs round(fraction * P) are exchanged, those whose mean entry comes first along `directions`
    [B, D].
    """
    if kind == "positional":
        partners = codes_b
    else:
        codes_a, codes_b = codes_a.sort(-1).values, codes_b.sort(-1).values
        # Without an array [B, N, N, D].
        pairs = codebook[codes_a], codebook[codes_b]
        cost = torch.cdist(*pairs, compute_mode="donot_use_mm_for_euclid_dist").square()
        same = (codes_a[:, :, None] == codes_b[:, None]) & (
            _copy(codes_a)[:, :, None] == _copy(codes_b)[:, None]
        )
        taken = same.any(-1, keepdim=True) | same.any(-2, keepdim=True)
        cost = cost.masked_fill(taken, torch.inf).masked_fill(same, 0.0)
        partners = codes_b.gather(1, match(cost))
    paired = codes_a != partners
    points = (codebook[codes_a] + codebook[partners]) / 2
    order = (points * directions[:, None]).sum(-1)
    rank = order.masked_fill(~paired, torch.inf).argsort(-1).argsort(-1)
    exchanged = rank < (fraction * paired.sum(-1, keepdim=True)).round()
    codes = torch.where(exchanged, partners, codes_a)
    return codes if kind == "positional" else codes.sort(-1).values


def _copy(codes: Tensor) -> Tensor:
    """How many equal codes come before each, [B, N] -> [B, N]."""
    return (codes[:, :, None] == codes[:, None]).tril(-1).sum(-1)
