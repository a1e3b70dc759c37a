"""Muon in PyTorch, in float32, after the formulas of `optax.contrib.muon`."""

import collections
import math

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton-Schulz, the highest power last


def orthogonalise(x: Tensor) -> Tensor:
    """[n, rows, columns], rows <= columns: singular values to about one, by Newton-Schulz."""
    a, b, c = COEFFICIENTS
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-8)
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """For weights [out, in, ...], as matrices [out, in * ...]; those of one shape are a group."""

    def __init__(self, weights: list[Tensor], *, lr: float, momentum: float, weight_decay: float):
        shapes = collections.defaultdict(list)
        for weight in weights:
            shapes[tuple(sorted(weight.flatten(1).shape))].append(weight)
        groups = [{"params": same, "shape": shape} for shape, same in shapes.items()]
        super().__init__(groups, {"lr": lr})
        self.momentum, self.weight_decay, self.steps_done = momentum, weight_decay, 0
        self.moments = [
            torch.zeros(len(same), *shape, device=same[0].device) for shape, same in shapes.items()
        ]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # takes no closure
        """One step on the gradients that the weights hold."""
        self.steps_done += 1
        beta, t = self.momentum, self.steps_done
        for group, moment in zip(self.param_groups, self.moments, strict=True):
            weights, rate, (rows, columns) = group["params"], group["lr"], group["shape"]
            gradient = torch.stack([_flat(weight.grad, rows) for weight in weights])
            moment.lerp_(gradient, 1 - beta)
            # Nesterov's: the moment as the next step will correct it, the gradient as this one.
            ahead = beta / (1 - beta ** (t + 1)) * moment
            ahead += (1 - beta) / (1 - beta**t) * gradient
            with torch.autocast(ahead.device.type, enabled=False):
                updates = orthogonalise(ahead)
            shaped = [
                (update if len(weight) == rows else update.mT).reshape(weight.shape)
                for weight, update in zip(weights, updates, strict=True)
            ]
            torch._foreach_mul_(weights, 1 - rate * self.weight_decay)
            torch._foreach_add_(weights, shaped, alpha=-rate * 0.2 * math.sqrt(columns))


def _flat(x: Tensor, rows: int) -> Tensor:
    """Reshapes to a matrix with `rows` rows, transposed if it is tall."""
    return x.flatten(1) if len(x) == rows else x.flatten(1).mT
