"""Recombination of code sets in PyTorch."""

import torch
from torch import Tensor

from pivq_jax.interop.torch_model import match


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
