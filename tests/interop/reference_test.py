"""The model beside its independent twin in PyTorch: the same weights give the same numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import torch

from pivq_jax import sampling
from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import Config
from pivq_jax.config.sections import RECOMBINATION_PATCHES, OptimizerConfig
from pivq_jax.interop import to_torch
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.interop.torch_model import PIVQ as Reference
from pivq_jax.model.pivq import PIVQ
from pivq_jax.model.quantizer import squared_distances
from pivq_jax.training.objective import Objective, Phase
from pivq_jax.training.optimizer import make_optimizer
from pivq_jax.training.steps import Steps, replace_codebook
from tests.parameters import draw_like
from tests.reference.muon import Muon
from tests.reference.quantizer import recombine
from tests.reference.training import Trainer

STEPS = 10
OPTIMIZER = {
    "name": "muon",
    "learning_rate": 1e-3,
    "muon_learning_rate": 6e-3,
    "momentum": 0.95,
    "warmup": 0.3,
    "weight_decay": 0.1,
    "clip_norm": 0.5,
}
VARIANTS = {
    "default": {"model.local_output": True},
    "nearest": {"quantizer.kind": "nearest", "model.output": "patch", "model.num_codes": 4},
    "positional": {
        "quantizer.kind": "positional",
        "model.set_depth": 2,
        "model.num_codes": 32,
    },
}


class Twins(NamedTuple):
    """One model twice, with equal weights."""

    config: Config
    model: PIVQ
    objective: Objective
    params: Any
    trainer: Trainer
    images: jax.Array  # f32 [8, 16, 16, 3]

    @property
    def reference(self) -> Reference:
        return self.trainer.model


def torch_images(images: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous()


def load_into(module: torch.nn.Module, params: Any) -> None:
    module.load_state_dict({n: torch.from_numpy(a) for n, a in to_torch(params).items()})


def make_twins(tiny_config: Config, changes: dict[str, Any]) -> Twins:
    config = tiny_config.with_fields(
        {
            "quantizer.noise": 0.1,
            "loss.l2": 0.5,
            "loss.recombination": 0.5,
            "loss.variance": 0.3,
            "adversarial.weight": 0.0,
            "adversarial.recombined_weight": 0.0,
            **{f"optimizer.{name}": value for name, value in OPTIMIZER.items()},
            **changes,
        }
    )
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3)), jnp.float32) / 127.5 - 1
    objective = Objective(config, make_mesh())
    params = draw_like(model_shapes(config), rng)
    trainer = Trainer(Reference(config.to_dict()), config.to_dict())
    load_into(trainer.model, params)
    return Twins(config, objective.model, objective, params, trainer, images)


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["default", *map(slow, list(VARIANTS)[1:])])
def twins(request, tiny_config) -> Twins:
    return make_twins(tiny_config, VARIANTS[request.param])


def apply(twins: Twins, x: Any, method: str) -> np.ndarray:
    run = jax.jit(lambda params, x: twins.model.apply({"params": params}, x, method=method))
    return jax.device_get(run(twins.params, x))


def exchange_directions(key: jax.Array, count: int, code_dim: int) -> np.ndarray:
    """The directions along which `sampling.recombine` orders the pairs of each image."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(count))
    return np.array(jax.vmap(lambda key: jax.random.normal(key, (code_dim,)))(keys))


def draws_at(twins: Twins, key: jax.Array) -> tuple[torch.Tensor, tuple[int, int], torch.Tensor]:
    """Directions, shift of patches and noise in a training step whose key is `key`."""
    key_mix, _, key_shift = jax.random.split(key, 3)
    patch_size = twins.config.data.image_size // RECOMBINATION_PATCHES
    rows, columns = jax.random.randint(key_shift, (2,), 0, patch_size).tolist()
    model = twins.config.model
    pairs = [exchange_directions(k, 1, model.code_dim) for k in jax.random.split(key_mix, 4)]
    sizes = len(twins.images), model.num_codes, model.code_dim
    noise = np.array(jax.random.normal(key_mix, sizes))
    return torch.from_numpy(np.concatenate(pairs)), (rows, columns), torch.from_numpy(noise)


def test_encoder_decoder_and_codes(twins):
    latents = apply(twins, twins.images, "latents")
    with torch.no_grad():
        theirs = twins.reference.encoder(torch_images(twins.images)).numpy()
        codes = twins.reference.quantizer.assign(torch.from_numpy(theirs)).numpy()
    np.testing.assert_allclose(latents, theirs, atol=1e-5)
    indices, converged, encoded = apply(twins, twins.images, "encode")
    with torch.no_grad():
        decoded = twins.reference.decoder(torch.from_numpy(np.array(encoded)))
    ours = apply(twins, encoded, "decode_vectors")
    np.testing.assert_allclose(ours, decoded.permute(0, 2, 3, 1), atol=1e-5)
    assert np.std(latents) > 0.5 and np.std(ours) > 0.1

    np.testing.assert_allclose(encoded, latents, atol=1e-6)
    assert np.all(converged)
    codebook = twins.params["quantizer"]["codebook"]
    cost = np.asarray(squared_distances(encoded, codebook), np.float64)
    for image, (a, b) in enumerate(zip(indices, codes, strict=True)):
        if not np.array_equal(a, b):  # only where both assignments are optimal
            rows = np.arange(len(a))
            best = cost[image].min(-1).sum()
            if twins.config.quantizer.kind == "matching":
                best = cost[image][scipy.optimize.linear_sum_assignment(cost[image])].sum()
            for answer in (a, b):
                assert cost[image, rows, answer].sum() <= best * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["matching", "nearest", "positional"])
def test_recombined_codes(kind):
    rng = np.random.default_rng(1)
    a, b = (np.stack([rng.permutation(16)[:8] for _ in range(64)]) for _ in range(2))
    if kind != "matching":
        a[:, 1] = b[:, 1] = b[:, 0] = a[:, 0]  # a code twice, in both
    codebook, key = rng.normal(size=(32, 8)).astype(np.float32), jax.random.key(7)
    ours = sampling.recombine(sampling.CodeSpace(8, 32, kind), codebook, a, b, key, 0.5)
    directions = exchange_directions(key, 64, 8)
    theirs = recombine(*map(torch.from_numpy, (a, b, codebook, directions)), 0.5, kind)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "variant, phase",
    [
        ("default", Phase.QUANTIZED),
        slow("default", Phase.CONTINUOUS),
        *(slow(variant, Phase.QUANTIZED) for variant in list(VARIANTS)[1:]),
    ],
)
def test_losses_and_gradients(tiny_config, variant, phase):
    twins = make_twins(tiny_config, VARIANTS[variant])
    key = jax.random.key(3)
    found = jax.device_get(
        jax.jit(twins.objective.gradients, static_argnames="phase")(
            twins.params, None, {}, twins.images, key, phase=phase
        )
    )
    images, trainer = torch_images(twins.images), twins.trainer
    terms, _ = trainer.losses(images, phase.name.lower(), *draws_at(twins, key))
    names = {"l1": "l1", "loss": "total", "variance": "variance"}
    if phase >= Phase.QUANTIZED:
        names["quantization_error"] = "codebook"
        if twins.config.loss.recombination:
            names["recombination"] = "recombination"
    for ours, theirs in names.items():
        value = terms[theirs].item()
        assert abs(found.metrics[ours] - value) <= 1e-5 * max(1.0, abs(value)), ours

    trainer.model.zero_grad()
    terms["total"].backward()
    compare_gradients(to_torch(found.params), trainer.model)


def compare_gradients(ours: dict[str, np.ndarray], module: torch.nn.Module) -> None:
    theirs = {
        name: np.zeros(p.shape) if p.grad is None else p.grad.numpy()
        for name, p in module.named_parameters()
    }
    whole = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in theirs.values()))
    assert whole > 0
    for name, gradient in theirs.items():
        difference, norm = np.linalg.norm(ours[name] - gradient), np.linalg.norm(gradient)
        assert difference <= max(1e-4 * norm, 1e-7 * whole), name


def test_ten_steps_of_muon_on_given_gradients():
    """Kernels wide, upright and square, several of a shape, and a convolution's.

    The gradients' rows have mean zero, as those before a norm, and rounding error differs there:
    Newton-Schulz makes it at most 3.4445^5 = 485 times as large.
    """
    shapes = {"wide": (8, 16), "upright": (16, 8), "square": (8, 8), "same": (8, 8)}
    shapes |= {"conv": (3, 3, 2, 8), "long": (16, 64)}
    rng = np.random.default_rng(4)

    def draw() -> Any:
        return {
            name: {"kernel": jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)}
            for name, shape in shapes.items()
        }

    settings = {**OPTIMIZER, "clip_norm": 1e9}
    optimizer = make_optimizer(OptimizerConfig(**settings), STEPS)
    rates = optax.warmup_cosine_decay_schedule(
        0.0, OPTIMIZER["muon_learning_rate"], round(OPTIMIZER["warmup"] * STEPS), STEPS
    )
    before = params = draw()
    weights = {n: torch.tensor(w) for n, w in to_torch(params).items()}
    muon = Muon(
        [*weights.values()],
        lr=0.0,
        momentum=OPTIMIZER["momentum"],
        weight_decay=OPTIMIZER["weight_decay"],
    )
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(STEPS):
        gradients = jax.tree.map(lambda g: g - g.mean(-1, keepdims=True), draw())
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, gradient in to_torch(gradients).items():
            noise = 1 + 1e-6 * rng.normal(size=gradient.shape).astype(np.float32)
            weights[name].grad = torch.from_numpy(gradient * noise)
        for group in muon.param_groups:
            group["lr"] = float(rates(step))
        muon.step()
    start = to_torch(before)
    for name, ours in to_torch(params).items():
        assert np.abs(ours - start[name]).max() > 5e-3
        np.testing.assert_allclose(ours, weights[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_ten_optimizer_steps(tiny_config, name):
    """Continuous, then with the quantizer after the delayed initialisation."""
    seed, codebook_size = 5, 32
    fields = {
        "seed": seed,
        "optimizer.name": name,
        "quantizer.init_at": 0.2,
        "loss.recombination_warmup": 1.0,
        "train.steps": STEPS,
        "train.ema_decay": 0.3,  # reached from the fourth step on
    }
    twins = make_twins(tiny_config, fields)
    trainer, steps = twins.trainer, Steps(twins.config, make_mesh())
    state = steps.create().replace(
        params=jax.tree.map(jnp.copy, twins.params),  # the steps take their state's memory
        ema_params=jax.tree.map(jnp.copy, twins.params),
    )
    pixels = np.asarray(jnp.round((twins.images + 1) * 127.5)).astype(np.uint8)
    images = torch_images(twins.images)
    for step in range(STEPS):
        phase = Phase.CONTINUOUS if step < 2 else Phase.QUANTIZED
        if step == 2:
            latents = trainer.model.encoder(images).detach().reshape(-1, 8)
            codebook = latents[::2] + 0.3 * torch.from_numpy(
                np.random.default_rng(2).normal(size=(codebook_size, 8)).astype(np.float32)
            )
            trainer.initialise(codebook)
            state = replace_codebook(
                state, jnp.asarray(codebook.numpy()), jnp.ones(codebook_size, bool)
            )
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 3), step)
        state, metrics = steps.train(state, pixels, {}, phase)
        terms = trainer.step(images, phase.name.lower(), *draws_at(twins, key))
        assert float(metrics["loss"]) == pytest.approx(float(terms["total"]), rel=1e-4)

    players = {
        "": (state.params, dict(trainer.model.named_parameters())),
        "average of ": (state.ema_params, trainer.ema),
    }
    for which, (params, theirs) in players.items():
        before = to_torch(twins.params)
        ours = to_torch(params)
        assert max(np.abs(before[name] - array).max() for name, array in ours.items()) > 1e-3
        for name, array in ours.items():
            # It adds one number to all logits of a query, which softmax does not see: its gradient
            # is rounding error, which Adam scales up to a whole step.
            if name.endswith("key_norm.bias"):
                continue
            other = theirs[name].detach().numpy()
            np.testing.assert_allclose(array, other, rtol=0, atol=1e-4, err_msg=which + name)
