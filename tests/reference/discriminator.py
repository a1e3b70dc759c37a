"""The discriminator's heads in PyTorch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Discriminator(nn.Module):
    def __init__(self, widths: Sequence[int], channels: int):
        super().__init__()
        shapes = [(4, 4) if i < 2 else (3, 2 if i == 2 else 1) for i in range(len(widths))]
        self.pixelss = nn.ModuleList(nn.Conv2d(width, channels, 4, 2, 1) for width in (3, channels))
        self.logits_pixels = nn.Conv2d(channels, 1, 1)
        self.projects = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, *shape) for shape in shapes)
        self.logitss = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in widths)

    def forward(self, seen: Sequence[Tensor]) -> Tensor:
        """Images and feature maps [B, C, h, w] -> logits [B, L], map after map, rows first."""
        images, *maps = seen
        for conv in self.pixelss:
            images = F.leaky_relu(conv(images), 0.2)
        logits = [self.logits_pixels(images).flatten(1)]
        heads = zip(self.projects, self.convs, self.logitss, strict=True)
        for i, (x, (project, conv, last)) in enumerate(zip(maps, heads, strict=True)):
            x = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
            x = F.leaky_relu(project(x), 0.2)
            if i == 2:
                x = F.pad(x, (0, 1, 0, 1))  # as 'SAME' does with stride 2 and an even size
            elif i > 2:
                x = F.pad(x, (1, 1, 1, 1))
            logits.append(last(F.leaky_relu(conv(x), 0.2)).flatten(1))
        return torch.cat(logits, 1)
