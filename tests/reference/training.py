"""Losses and the training step in PyTorch; without the perceptual network and the discriminator."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivq_jax.interop.torch_model import PIVQ
from tests.reference.muon import Muon
from tests.reference.quantizer import recombine


def nearest_patch_loss(images: Tensor, references: Tensor, shift: tuple[int, int]) -> Tensor:
    """Of each patch, the mean absolute difference to the most similar one at its place."""
    patch = images.shape[2] // 4
    ours, real = (
        F.unfold(x.roll(shift, (2, 3)), patch, stride=patch).permute(2, 0, 1)
        for x in (images, references.detach())
    )  # [places, B, 3 * patch ** 2]
    distances = (ours[:, :, None] - real[:, None]).abs().mean(-1)
    return distances.min(-1).values.mean()


def make_optimizers(
    model: PIVQ,
    *,
    name: str,
    learning_rate: float,
    muon_learning_rate: float,
    momentum: float,
    weight_decay: float,
    **_: float,
) -> list[torch.optim.Optimizer]:
    """AdamW at its peak rate and, unless it has all parameters, Muon at its own.

    `name` is 'adamw', or 'muon', which has the weights of linear layers and convolutions.
    """
    kinds = {"adamw": (), "muon": (nn.Linear, nn.Conv2d)}[name]
    matrices = [module.weight for module in model.modules() if isinstance(module, kinds)]
    theirs = {id(weight) for weight in matrices}
    named = {n: p for n, p in model.named_parameters() if id(p) not in theirs}
    decays = {n: p.ndim > 1 and n != "quantizer.codebook" for n, p in named.items()}
    groups: list[dict] = [
        {"params": [p for n, p in named.items() if decays[n]]},
        {"params": [p for n, p in named.items() if not decays[n]], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            groups,
            lr=learning_rate,
            betas=(0.9, 0.99),
            eps=1e-8,
            weight_decay=weight_decay,
            fused=True,
        )
    ]
    if name == "muon":
        optimizers.append(
            Muon(matrices, lr=muon_learning_rate, momentum=momentum, weight_decay=weight_decay)
        )
    return optimizers


class Trainer:
    """A model, its optimizers, the schedule and the averaged weights."""

    def __init__(self, model: PIVQ, config: dict):
        """`config` is the resolved config of a run."""
        self.model, self.weights = model, config["loss"]
        optimizer, train = config["optimizer"], config["train"]
        self.noise = config["quantizer"]["noise"]
        self.clip_norm, self.ema_decay = optimizer["clip_norm"], train["ema_decay"]
        self.optimizers = make_optimizers(model, **optimizer)
        total = train["steps"]
        warmup = round(optimizer["warmup"] * total)

        def schedule(step: int) -> float:
            if step < warmup:
                return step / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))

        begin = round(config["quantizer"]["init_at"] * total)
        rise = self.weights["recombination_warmup"] * (total - begin)

        def recombination_scale(step: int) -> float:
            return min(max((step - begin) / rise, 0.0), 1.0) if rise else 1.0

        self.recombination_scale = recombination_scale
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(each, schedule) for each in self.optimizers
        ]
        self.ema = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.steps_done = 0

    def losses(
        self,
        images: Tensor,
        phase: str,
        directions: Tensor | None = None,
        shift: tuple[int, int] = (0, 0),
        noise: Tensor | None = None,
        recombination_scale: float = 1.0,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms of the loss with their weighted sum `total`; the images that were made.

        `phase` is 'continuous' or 'quantized'. `directions` [B / 2, D] say which
        codes are exchanged first in the recombined sets, whose weight is scaled; `shift` moves the
        patches to which their loss applies. `noise`, standard normal, is that of
        latents that are not quantized.
        """
        model, weights, terms = self.model, dict(self.weights), {}
        weights["recombination"] *= recombination_scale
        latents = model.encoder(images)
        if phase == "continuous":
            assert noise is not None
            vectors = latents + self.noise * noise
        else:
            quantized = model.quantizer(latents)
            vectors = quantized.vectors
            terms["codebook"] = quantized.codebook_loss
            terms["commitment"] = quantized.commitment_loss
        made = {"reconstructed": model.decoder(vectors)}
        error = made["reconstructed"] - images
        terms["l1"], terms["l2"] = error.abs().mean(), error.square().mean()
        if phase != "continuous" and self.weights["recombination"]:
            half, codebook = len(images) // 2, model.quantizer.codebook.detach()
            a, b = quantized.indices[:half], quantized.indices[half : 2 * half]
            assert directions is not None
            mixed = recombine(a, b, codebook, directions, 0.5, model.kind)
            made["recombined"] = model.decoder(codebook[mixed])
            terms["recombination"] = nearest_patch_loss(made["recombined"], images, shift)
        if weights["variance"]:
            deviations = (latents.var(0, unbiased=False).mean(-1) + 1e-6).sqrt()
            terms["variance"] = (0.25 - deviations).relu().mean()
        terms["total"] = sum(weights[name] * value for name, value in terms.items())
        return terms, made

    def step(
        self,
        images: Tensor,
        phase: str,
        directions: Tensor | None = None,
        shift: tuple[int, int] = (0, 0),
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One step on images [B, 3, H, W]; the terms of the loss before it."""
        scale = self.recombination_scale(self.steps_done)
        terms, _ = self.losses(images, phase, directions, shift, noise, scale)
        self.model.zero_grad()
        terms["total"].backward()
        for parameter in self.model.parameters():
            if parameter.grad is None:  # the unused codebook: its count of steps goes on
                parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        decay = min(self.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.model.parameters()), 1 - decay)
        self.steps_done += 1
        return {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def initialise(self, codebook: Tensor) -> None:
        """Delayed initialisation: new entries [K, D] here and in the averages, no moments."""
        parameter = self.model.quantizer.codebook
        parameter.copy_(codebook)
        self.ema["quantizer.codebook"].copy_(codebook)
        for name, value in self.optimizers[0].state[parameter].items():
            if name != "step":
                value.zero_()
