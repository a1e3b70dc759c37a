"""The discriminator and the hinge losses in PyTorch."""

import torch.nn.functional as F
from torch import Tensor, nn


class Discriminator(nn.Module):
    def __init__(self, channels: int, layers: int):
        super().__init__()
        widths = [3, *(channels * min(2**i, 8) for i in range(layers + 1))]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 4, 2 if i < layers else 1, 1, bias=i == 0)
            for i in range(layers + 1)
        )
        self.norms = nn.ModuleDict(
            {str(i): nn.GroupNorm(8, widths[i + 1], eps=1e-6) for i in range(1, layers + 1)}
        )
        self.logits = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        for conv in (*self.convs, self.logits):
            nn.init.normal_(conv.weight, std=0.02)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, h, w]."""
        x = F.leaky_relu(self.convs[0](images), 0.2)
        for i, norm in self.norms.items():
            x = F.leaky_relu(norm(self.convs[int(i)](x)), 0.2)
        return self.logits(x).squeeze(1)


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def generator_hinge(fake: Tensor) -> Tensor:
    return -fake.mean()
