"""The jitted steps on a small model, and what happens to the optimizer when entries move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonState

from pivq_jax.common.parallel import make_mesh
from pivq_jax.config.sections import OPTIMIZERS
from pivq_jax.training.objective import CODING, Phase
from pivq_jax.training.steps import Draw, Steps, TrainState, replace_codebook
from tests.training.optimizer_test import make


def adam(opt_state) -> optax.ScaleByAdamState:
    found = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
    return next(x for x in found if isinstance(x, optax.ScaleByAdamState))


def first_moments(opt_state) -> list[jax.Array]:
    """Of every parameter, whichever optimizer has it."""
    kinds = (optax.ScaleByAdamState, MuonState)
    found = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kinds))
    return jax.tree.leaves([x.mu for x in found if isinstance(x, kinds)])


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_replaced_entries_have_no_moments_and_their_averages_follow(optimizer_name):
    rng = np.random.default_rng(0)

    def random() -> dict:
        return {
            "quantizer": {"codebook": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)},
            "decoder": {
                "codebook": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32),
                "kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32),
            },
        }

    params, ema = random(), random()
    optimizer, _ = make(optimizer_name)
    opt_state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(3):
        _, opt_state = update(random(), opt_state, params)
    state = TrainState(jnp.int32(3), params, ema, opt_state, jnp.arange(5, dtype=jnp.int32))
    new = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    changed = np.array([False, True, False, True, False])
    after = replace_codebook(state, new, jnp.asarray(changed))

    trees = {
        "params": (state.params, after.params, new),
        "ema": (state.ema_params, after.ema_params, new),
        "first moment": (adam(opt_state).mu, adam(after.opt_state).mu, np.zeros((5, 3))),
        "second moment": (adam(opt_state).nu, adam(after.opt_state).nu, np.zeros((5, 3))),
    }
    for name, (old, now, expected) in trees.items():
        entries, before = now["quantizer"]["codebook"], old["quantizer"]["codebook"]
        np.testing.assert_array_equal(entries[changed], expected[changed], err_msg=name)
        np.testing.assert_array_equal(entries[~changed], before[~changed], err_msg=name)
        # Another parameter of the same name stays as it is.
        np.testing.assert_array_equal(now["decoder"]["codebook"], old["decoder"]["codebook"])
    assert np.any(adam(opt_state).nu["quantizer"]["codebook"][changed] != 0)  # were not zero
    # Nor do the moments of anything else change, Muon's among them.
    kept = zip(first_moments(opt_state), first_moments(after.opt_state), strict=True)
    assert sum(not np.array_equal(old, now) for old, now in kept) == 1
    assert adam(after.opt_state).count == 3 and after.step == 3
    np.testing.assert_array_equal(after.uses, 0)


# What is quick to compile: Muon and the discriminator have tests of their own.
PLAIN = {
    "optimizer.name": "adamw",
    "adversarial.weight": 0.0,
    "adversarial.recombined_weight": 0.0,
}


@pytest.fixture(scope="module")
def steps(tiny_config):
    half = {"loss.recombination_warmup": 0.5}  # of steps 60 to 160
    return Steps(tiny_config.with_fields(PLAIN | half), make_mesh())


@pytest.fixture(scope="module")
def images(faces):
    return jnp.asarray(faces[:8, ::3, ::3])


def copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)  # the steps take their state's memory


def placed(state: TrainState, created: TrainState) -> TrainState:
    """A state where `steps.create` places it: for states elsewhere `train` compiles again."""
    return jax.device_put(state, jax.tree.map(lambda x: x.sharding, created))


def initialised(steps: Steps, state: TrainState, images: jax.Array) -> TrainState:
    """The state with a codebook from the latents of these images."""
    return steps.initialise(state, steps.latents(state.params, images)[None])


def test_the_draws_of_a_step_are_those_of_earlier_versions(steps):
    """Found with jax 0.10.0: other bits would change every seeded run, and resumed ones midway."""
    key = steps._key(Draw.LOSS, jnp.int32(7))
    drawn = [
        jax.random.key_data(key),
        jax.random.key_data(jax.random.split(key)).ravel(),
        jax.random.bits(key, (3,)),
        jax.random.permutation(key, 8),
        jax.random.choice(key, 10, (4,), replace=False),
        jax.random.randint(key, (5,), 0, 100),
        jax.random.categorical(key, jnp.zeros(16), shape=(4,)),
    ]
    assert [x.tolist() for x in drawn] == [
        [3722243546, 2605438598],
        [2007984434, 914996959, 2697778849, 3029036394],
        [1093064685, 340245451, 1565252539],
        [3, 6, 1, 7, 4, 2, 5, 0],
        [9, 3, 6, 1],
        [32, 17, 15, 38, 21],
        [11, 9, 9, 4],
    ]
    normal = [-0.6603992, -1.4103413, -0.3466193]
    np.testing.assert_allclose(jax.random.normal(key, (3,)), normal, rtol=1e-5)


@pytest.mark.slow
def test_a_life_of_a_codebook(steps, images, tiny_config):
    created = steps.create()
    np.testing.assert_array_equal(
        created.params["quantizer"]["codebook"], created.ema_params["quantizer"]["codebook"]
    )

    # Initialised from latents of these images: every entry lies among them.
    every = steps.latents(created.params, images)
    state = steps.initialise(copy(created), every[None])
    latents = np.asarray(every).reshape(-1, 8)
    codebook = np.asarray(state.params["quantizer"]["codebook"])
    assert np.all(codebook >= latents.min(0) - 1e-5) and np.all(codebook <= latents.max(0) + 1e-5)
    np.testing.assert_array_equal(codebook, state.ema_params["quantizer"]["codebook"])
    for name in ("encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, state.params[name], created.params[name])

    # A step counts the entries that it used: N distinct ones an image.
    state = placed(state.replace(step=jnp.int32(85)), created)
    before = copy(state)
    state, metrics = steps.train(state, images, {}, Phase.QUANTIZED)
    assert state.step == 86
    uses = np.asarray(state.uses)
    assert uses.sum() == 8 * 8 and uses.max() <= 8
    metrics = {name: float(value) for name, value in metrics.items()}
    error = metrics["quantization_error"]
    nearest = ((latents[:, None].astype(np.float64) - codebook) ** 2).mean(-1).min(1).mean()
    assert error >= nearest - 1e-6  # one to one cannot be nearer than the nearest
    expected = metrics["l1"] + 1.25 * error
    expected += 0.5 * 0.5 * metrics["recombination"]  # (85 - 60) / 50 of its weight
    expected += 0.3 * metrics["variance"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)

    # The average moves towards the parameters, at first fast: decay min(0.999, 86 / 95).
    expected = jax.tree.map(
        lambda ema, new: (86 * ema + 9 * new) / 95, before.ema_params, state.params
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ema_params, expected
    )

    # A revival moves the unused entries and nothing else.
    before = copy(state)
    state, revived = steps.revive(state, images)
    dead = uses < 0.05 * uses.mean()
    assert int(revived) == dead.sum()
    now = np.asarray(state.params["quantizer"]["codebook"])
    then = np.asarray(before.params["quantizer"]["codebook"])
    np.testing.assert_array_equal(now[~dead], then[~dead])
    assert dead.sum() == 0 or np.all(np.any(now[dead] != then[dead], axis=1))
    np.testing.assert_array_equal(state.uses, 0)


@pytest.mark.slow
def test_a_codebook_in_a_checkpoint_before_its_start_changes_nothing(steps, images):
    latents = steps.latents(steps.create().params, images)

    def trained(with_checkpoint: bool) -> TrainState:
        state = steps.create()
        for number in range(4):
            if with_checkpoint and number == 2:
                state = steps.initialise(state, latents[None])
            state, _ = steps.train(state, images, {}, Phase.CONTINUOUS)
        return steps.initialise(state, 2 * latents[None])

    jax.tree.map(np.testing.assert_array_equal, trained(True), trained(False))


@pytest.mark.slow
def test_an_invalid_matching_makes_the_loss_not_finite(steps, images):
    created = steps.create()
    entries = created.params["quantizer"]["codebook"].at[3, 0].set(jnp.nan)
    state = placed(replace_codebook(created, entries, jnp.ones(32, bool)), created)
    _, metrics = steps.train(state, images, {}, Phase.QUANTIZED)
    assert not np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["gradient_norm"])  # so that no later step recovers


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_same_step(images, tiny_config):
    """But for recombination, which pairs images within a part, and their latents' variance."""
    alone = {"loss.recombination": 0.0, "loss.variance": 0.0}
    results = []
    for parts in (1, 4):
        config = tiny_config.with_fields({**alone, "train.accumulation": parts})
        steps = Steps(config, make_mesh())
        state = initialised(steps, steps.create(), images)
        results.append(steps.train(state, images, {}, Phase.QUANTIZED))
    (whole, metrics), (parts, of_parts) = results
    np.testing.assert_array_equal(whole.uses, parts.uses)
    for name in metrics:
        assert float(of_parts[name]) == pytest.approx(float(metrics[name]), rel=1e-4), name
    # Moments rather than parameters: Adam's first step is the gradient's sign, and Muon's has all
    # of its directions at one size, those that are but rounding among them.
    first, second = first_moments(whole.opt_state), first_moments(parts.opt_state)
    assert len(first) == len(jax.tree.leaves(whole.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, second)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sinkhorn", "greedy"])  # the exact ones find the same
def test_every_solver_trains(method, images, tiny_config):
    config = tiny_config.with_fields({"quantizer.method": method, "loss.recombination_warmup": 0.0})
    steps, losses = Steps(config, make_mesh()), []
    state = initialised(steps, steps.create(), images)
    for _ in range(12):
        state, metrics = steps.train(state, images, {}, Phase.QUANTIZED)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert np.asarray(state.uses).sum() == 12 * 8 * 8


@pytest.mark.slow
def test_once_codes_are_fixed_the_decoder_alone_moves(images, tiny_config):
    """From the averaged weights on, as codes are made with them later."""
    config = tiny_config.with_fields({**PLAIN, "train.ema_decay": 0.9})
    steps = Steps(config, make_mesh())
    state = steps.create()
    for _ in range(3):
        state, _ = steps.train(state, images, {}, Phase.QUANTIZED)
    averages = jax.tree.map(np.array, state.ema_params)
    decoder = jax.tree.map(np.array, state.params["decoder"])
    for _ in range(3):
        state, _ = steps.train(state, images, {}, Phase.DECODER)
    for name in CODING:
        for params in (state.params, state.ema_params):
            jax.tree.map(np.testing.assert_array_equal, params[name], averages[name])
    moved = [
        np.abs(a - b).max()
        for now, before in (
            (state.params["decoder"], decoder),
            (state.ema_params["decoder"], averages["decoder"]),
        )
        for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(before), strict=True)
    ]
    assert max(moved) > 1e-4
