"""The gradients of a step against those of the plain sum of its losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common.parallel import make_mesh
from pivq_jax.losses import perceptual as networks
from pivq_jax.losses.adversarial import discriminator_hinge, views
from pivq_jax.losses.lpips_weights import load_lpips
from pivq_jax.training.objective import CODING, JUDGED, Objective, Phase

KEY = jax.random.key(3)
VGG = load_lpips("vgg")


def perceptual(lpips, images, targets, *_):
    """A stand-in that is cheap: distances of one linear feature map."""
    return jnp.mean(jnp.square((images - targets) @ lpips), axis=(1, 2, 3))


@pytest.fixture(scope="module")
def setting(tiny_config, faces):
    """An objective with every term, parameters, a discriminator and images."""
    config = tiny_config.with_fields(
        {
            "adversarial.weight": 0.8,
            "adversarial.recombined_weight": 0.4,
            "adversarial.perceptual": 0.6,
            "adversarial.channels": 8,
            "loss.perceptual": 0.3,
            "loss.variance": 0.2,
        }
    )
    objective = Objective(config, make_mesh(), perceptual)
    images = jnp.asarray(faces[:8, ::3, ::3], jnp.float32) / 127.5 - 1
    params = jax.jit(objective.model.init)(jax.random.key(0), images)["params"]
    judge = objective.initial_discriminator(jax.random.key(1))
    lpips = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    return objective, params, judge, lpips, images


def changed(objective: Objective, fields: dict[str, float]) -> Objective:
    """With other fields of the config."""
    return dataclasses.replace(objective, config=objective.config.with_fields(fields))


def run(objective: Objective, phase: Phase, params, judge, lpips, images):
    return jax.jit(objective.gradients, static_argnames="phase")(
        params, judge, {"alex": lpips, "vgg": VGG}, images, KEY, phase=phase
    )


def close(ours, expected) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-4), ours, expected
    )


@pytest.mark.slow
def test_without_a_codebook_it_is_the_gradient_of_the_weighted_sum(setting):
    """With LPIPS, which the twin in PyTorch of reference_test lacks."""
    objective, params, judge, lpips, images = setting
    objective = changed(objective, {"loss.variance": 0.0, "quantizer.noise": 0.0})
    found = run(objective, Phase.CONTINUOUS, params, judge, lpips, images)
    assert found.discriminator is None

    def plain(params):
        made, _ = objective.model.apply({"params": params}, images, method="autoencode")
        return jnp.mean(jnp.abs(made - images)) + 0.3 * jnp.mean(perceptual(lpips, made, images))

    loss, expected = jax.jit(jax.value_and_grad(plain))(params)
    assert float(found.metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    close(found.params, expected)


@pytest.mark.slow
def test_images_are_moved_together_before_they_are_compared(setting):
    objective, params, judge, lpips, images = setting
    ramp = jnp.arange(images.shape[1] * images.shape[2], dtype=jnp.float32)
    ramp = ramp.reshape(images.shape[1:3])

    def at_places(lpips, images, targets, *_):  # unlike `perceptual`, it depends on the places
        errors = jnp.mean(jnp.square((images - targets) @ lpips), -1)
        return jnp.mean(errors * ramp, (1, 2))

    objective = dataclasses.replace(objective, lpips=at_places)
    objective = changed(objective, {"loss.perceptual_shift": 2, "quantizer.noise": 0.0})
    gradients = jax.jit(objective.gradients, static_argnames="phase")
    found = [
        float(
            gradients(params, judge, {"alex": lpips}, images, key, Phase.CONTINUOUS).metrics[
                "lpips"
            ]
        )
        for key in jax.random.split(KEY, 6)
    ]

    @jax.jit
    def distances_of_moves(params):
        made, _ = objective.model.apply({"params": params}, images, method="autoencode")
        moves = [(down, right) for down in range(3) for right in range(3)]
        pairs = [[jnp.roll(x, move, (1, 2)) for x in (made, images)] for move in moves]
        return jnp.stack([at_places(lpips, *pair).mean() for pair in pairs])

    distances = np.asarray(distances_of_moves(params))
    moves = {int(np.argmin(np.abs(distances - each))) for each in found}
    np.testing.assert_allclose(
        np.abs(distances - np.array(found)[:, None]).min(1), 0, atol=1e-4 * distances.max()
    )
    assert len(moves) > 2  # a new one in each step


@pytest.mark.slow
def test_a_discriminator_adds_the_gradients_of_its_weighted_sum(setting):
    objective, params, judge, lpips, images = setting
    found = run(objective, Phase.ADVERSARIAL, params, judge, lpips, images)
    key_mix, key, _ = jax.random.split(KEY, 3)
    keys = jax.random.split(key)

    def maps(images, key):
        seen = views(images, key)
        return [seen, *networks.feature_maps(JUDGED, VGG, seen)]

    def features(params):
        made, quantized = objective.model.apply({"params": params}, images)
        recombined = objective._recombine(params, quantized.indices, key_mix)
        return maps(made[::2], keys[0]), maps(recombined, keys[1]), maps(images[::2], keys[0])

    def logits(judge, features):
        return objective.discriminator.apply({"params": judge}, features)

    def realism(params):
        made, recombined, real = features(params)
        units = [[networks.unit(x) for x in maps] for _, *maps in (made, real)]
        total = 0.6 * networks.lpips_distance(VGG, *units).mean()
        return total - 0.8 * logits(judge, made).mean() - 0.4 * logits(judge, recombined).mean()

    def judgement(judge):
        made, recombined, real = features(params)
        fakes = (
            discriminator_hinge(logits(judge, real), logits(judge, x)) for x in (made, recombined)
        )
        return sum(fakes) / 2

    quantized = run(objective, Phase.QUANTIZED, params, judge, lpips, images)
    expected = jax.tree.map(jnp.add, quantized.params, jax.jit(jax.grad(realism))(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * (1 + np.abs(b).max())),
        found.params,
        expected,
    )
    loss, expected = jax.jit(jax.value_and_grad(judgement))(judge)
    assert float(found.metrics["discriminator"]) == pytest.approx(float(loss), rel=1e-5)
    close(found.discriminator, expected)
    names = {"discriminator", "lpips_vgg", "logits_real"}
    names |= {"logits_reconstructed", "logits_recombined"}
    assert names <= set(found.metrics) and not names & set(quantized.metrics)


@pytest.mark.slow
def test_in_the_last_phase_the_decoder_alone_has_gradients(setting):
    objective, params, judge, lpips, images = setting
    last = run(objective, Phase.DECODER, params, judge, lpips, images)
    before = run(objective, Phase.ADVERSARIAL, params, judge, lpips, images)
    close(last.params["decoder"], before.params["decoder"])
    close(last.discriminator, before.discriminator)
    for name in CODING:
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(last.params[name]))


@pytest.mark.slow
def test_only_the_decoder_learns_from_recombined_sets(setting):
    objective, params, judge, lpips, images = setting
    weights = ("l1", "l2", "perceptual", "codebook", "commitment", "variance")
    only = changed(objective, {f"loss.{name}": 0.0 for name in weights})
    gradients = run(only, Phase.QUANTIZED, params, judge, lpips, images).params
    largest = {
        room: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients[room]))
        for room in gradients
    }
    assert largest["decoder"] > 0 and largest["encoder"] == largest["quantizer"] == 0
