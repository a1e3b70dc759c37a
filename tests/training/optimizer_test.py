"""Muon and AdamW: which parameter has which, optax as the oracle, one device against eight."""

import itertools
import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from optax.contrib import MuonDimensionNumbers, MuonState

from pivq_jax.config import load_config
from pivq_jax.config.sections import OPTIMIZERS, OptimizerConfig
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.training.optimizer import (
    UPDATE_RMS,
    learning_rate_schedule,
    make_optimizer,
    newton_schulz,
    orthogonalize,
    stack_sharding,
)

OPTIMIZER = {
    "learning_rate": 1e-2,
    "muon_learning_rate": 3e-2,
    "momentum": 0.95,
    "warmup": 0.1,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
}
both = pytest.mark.parametrize("name", OPTIMIZERS)


def make(name: str) -> tuple[optax.GradientTransformation, optax.Schedule]:
    config = OptimizerConfig(name=name, **OPTIMIZER)
    return make_optimizer(config, steps=100), learning_rate_schedule(config, steps=100)


def state_of(kind, opt_state):
    """The one state of an optax transformation's kind."""
    found = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    (state,) = (x for x in found if isinstance(x, kind))
    return state


def test_schedule_warms_up_and_decays_to_zero():
    _, schedule = make("muon")
    assert schedule(0) == 0 and schedule(5) == pytest.approx(5e-3)
    assert schedule(10) == pytest.approx(1e-2)
    # Half-way between the warm-up's end and the last step the cosine is at half.
    assert schedule(55) == pytest.approx(5e-3)
    assert schedule(100) == pytest.approx(0, abs=1e-9)


@both
def test_only_matrices_decay_and_the_codebook_does_not(name):
    params = {
        "quantizer": {"codebook": jnp.ones((4, 2))},
        "encoder": {"queries": jnp.ones((3, 2))},
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "conv": {"kernel": jnp.ones((3, 3, 2, 4))},
        "local": {"kernels": jnp.ones((4, 3, 2))},
    }
    optimizer, schedule = make(name)
    state, zero = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(optimizer.update)
    _, state = update(zero, state, params)  # step 0: the rate is zero
    updates, _ = update(zero, state, params)
    rate = schedule(1) * (3 if name == "muon" else 1)  # Muon's peak is three times AdamW's
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.1 * rate, rtol=1e-6)
    np.testing.assert_allclose(updates["conv"]["kernel"], -0.1 * rate, rtol=1e-6)
    np.testing.assert_allclose(updates["encoder"]["queries"], -0.1 * schedule(1), rtol=1e-6)
    np.testing.assert_allclose(updates["local"]["kernels"], -0.1 * schedule(1), rtol=1e-6)
    np.testing.assert_array_equal(updates["dense"]["bias"], 0)
    np.testing.assert_array_equal(updates["quantizer"]["codebook"], 0)


@both
def test_gradients_are_clipped_by_the_global_norm_of_all(name):
    params = {"a": {"kernel": jnp.zeros((2, 2))}, "b": {"bias": jnp.zeros(3)}}
    optimizer, _ = make(name)
    gradients = jax.tree.map(lambda x: x + 1e3, params)
    _, state = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    clipped = 1e3 / np.sqrt(7 * 1e6)
    adam = state_of(optax.ScaleByAdamState, state)
    np.testing.assert_allclose(adam.mu["b"]["bias"], 0.1 * clipped, rtol=1e-5)
    if name == "muon":
        muon = state_of(MuonState, state)
        assert len(jax.tree.leaves(adam.mu)) == len(jax.tree.leaves(muon.mu)) == 1
        np.testing.assert_allclose(muon.mu["a"]["kernel"], 0.05 * clipped, rtol=1e-5)
    else:
        np.testing.assert_allclose(adam.mu["a"]["kernel"], 0.1 * clipped, rtol=1e-5)


def name_of(path) -> str:
    return "/".join(part.key for part in path)


def named(tree) -> dict:
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def is_kernel(name: str) -> bool:
    """Of a dense layer or a convolution, which Muon updates."""
    return name.endswith("/kernel")


@pytest.fixture(scope="module")
def small():
    """Parameters of the smallest model that has all kinds of them."""
    return model_shapes(load_config("toon_faces:smoke"))


def several_steps(optimizer, shapes, count: int = 5):
    """Parameters, updates and state after steps on gradients drawn at random."""
    rng = np.random.default_rng(0)

    def random():
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)

    # The emitters that users have: the older ones of most tests round more coarsely.
    is_older = "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]  # later ones have no others
    options = {"xla_cpu_use_fusion_emitters": True} if is_older else {}
    params, update = random(), jax.jit(optimizer.update, compiler_options=options)
    state = optimizer.init(params)
    for _ in range(count):
        updates, state = update(random(), state, params)
        params = optax.apply_updates(params, updates)
    return params, updates, state


def schedule(peak: float) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, peak, 10, 100)


def the_adamw_of_before() -> optax.GradientTransformation:
    def decays(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x.ndim > 1 and name_of(path) != "quantizer/codebook", params
        )

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule(1e-2), b1=0.9, b2=0.99, weight_decay=0.1, mask=decays),
    )


@pytest.mark.slow
def test_adamw_is_the_one_of_before_bit_for_bit(small):
    ours, _ = make("adamw")
    found, expected = (several_steps(one, small) for one in (ours, the_adamw_of_before()))
    jax.tree.map(np.testing.assert_array_equal, found, expected)  # of one structure too


@pytest.mark.slow
def test_muon_is_that_of_optax(small):
    """In float32, whose sums run in another order where matrices are stacked and transposed."""

    def as_matrices(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: (
                MuonDimensionNumbers((*range(x.ndim - 1),), x.ndim - 1)
                if is_kernel(name_of(path))
                else None
            ),
            params,
        )

    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.muon(
            schedule(3e-2),
            beta=0.95,
            weight_decay=0.1,
            muon_weight_dimension_numbers=as_matrices,
            consistent_rms=0.2,
        ),
    )
    ours, _ = make("muon")
    found, updates, _ = several_steps(ours, small)
    expected, of_theirs, _ = several_steps(theirs, small)
    # Those that are not Muon's have the AdamW of before: optax's Muon gives them another.
    adamw, _, _ = several_steps(the_adamw_of_before(), small)
    found, updates, expected, of_theirs, adamw = map(
        named, (found, updates, expected, of_theirs, adamw)
    )
    for name in filter(is_kernel, found):
        largest = np.abs(of_theirs[name]).max()
        assert largest > 1e-3
        np.testing.assert_allclose(
            updates[name], of_theirs[name], rtol=0, atol=1e-5 * largest, err_msg=name
        )
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6, err_msg=name)
    for name in found.keys() - {*filter(is_kernel, found)}:
        np.testing.assert_allclose(found[name], adamw[name], rtol=0, atol=1e-6, err_msg=name)


@jax.jit
def orthogonalised(kernels):
    """Float32 kernels, as `orthogonalize` leaves them."""
    found, _ = orthogonalize().update(kernels, optax.EmptyState())
    return found


KERNELS = {
    "wide": (32, 128),
    "upright": (256, 64),
    "conv": (3, 3, 8, 24),
    "again": (32, 128),
    "square": (64, 64),
}


def drawn(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Random kernels of these shapes, whose function is compiled once."""
    rng = np.random.default_rng(seed)
    return {name: np.float32(scale * rng.normal(size=x)) for name, x in KERNELS.items()}


def test_the_iterations_are_a_polynomial_of_the_singular_values():
    """Against NumPy's decomposition in float64, and the polynomial of Jordan et al. (2024)."""
    kernels = drawn(1, scale=1e-3)
    found = orthogonalised(kernels)
    for name, kernel in kernels.items():
        matrix = np.float64(kernel.reshape(-1, kernel.shape[-1]))
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        values /= np.linalg.norm(values)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        expected = 0.2 * math.sqrt(max(left.shape[0], right.shape[1])) * (left * values) @ right
        expected = expected.reshape(kernel.shape)
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("values", [10.0 ** -np.linspace(0, 5, 32), [1.0] * 4 + [1e-9] * 28])
def test_products_in_bfloat16_as_on_a_tpu_leave_no_large_singular_value(values, monkeypatch):
    def rounded(x, y):
        x, y = (z.astype(jnp.bfloat16).astype(jnp.float32) for z in (x, y))
        return jnp.einsum("...ij,...jk->...ik", x, y)

    monkeypatch.setattr(type(jnp.zeros(())), "__matmul__", rounded)
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 32)))[0] for n in (32, 128))
    found = newton_schulz(jnp.asarray((right * values) @ left.T, jnp.float32)[None])[0]
    largest = np.linalg.svd(np.asarray(found), compute_uv=False)[0]
    assert largest / (UPDATE_RMS * math.sqrt(128)) < 1.3


def test_what_is_sent_may_be_bfloat16():
    kernels = drawn(3)
    update = jax.jit(orthogonalize(dtype=jnp.bfloat16).update)
    rounded, _ = update(kernels, optax.EmptyState())
    for name, expected in orthogonalised(kernels).items():
        assert rounded[name].dtype == jnp.float32
        error = np.linalg.norm(rounded[name] - expected) / np.linalg.norm(expected)
        assert 1e-4 < error < 1e-2, name


def test_kernels_do_not_depend_on_others_in_their_batch():
    kernels = drawn(2)
    silent = kernels | {"wide": np.zeros_like(kernels["wide"])}  # without a gradient
    together, without = orthogonalised(kernels), orthogonalised(silent)
    np.testing.assert_array_equal(without["wide"], 0)  # no update, and no NaN
    for name in KERNELS.keys() - {"wide"}:
        np.testing.assert_allclose(together[name], without[name], atol=1e-6)


def mesh_of(count: int) -> Mesh:
    """A mesh of `count` devices, all of which are the first one."""
    return Mesh(np.array([jax.devices()[0]] * count).reshape(-1, 1), ("data", "fsdp"))


@pytest.mark.parametrize(
    "shape, devices, split",
    [
        ((20, 256, 64), 8, (8, 1)),  # more matrices than devices
        ((8, 256, 64), 8, (8, 1)),
        ((5, 256, 64), 8, (8, 1)),  # four pairs of devices would be too few
        ((4, 256, 64), 8, (4, 2)),
        ((3, 256, 64), 8, (4, 2)),
        ((1, 256, 64), 8, (1, 8)),
        ((1, 252, 64), 8, (2, 4)),  # rows that eight do not divide
        ((1, 255, 65), 8, (8, 1)),  # nor two
        ((1, 252, 64), 6, (1, 6)),
        ((1, 256, 64), 1, (1, 1)),
        ((153, 768, 768), 256, (256, 1)),  # of ffhq
        ((52, 3072, 768), 256, (64, 4)),
    ],
)
def test_a_batch_of_matrices_is_split_by_count_and_then_by_rows(shape, devices, split):
    sharding = stack_sharding(shape, mesh_of(devices))
    assert sharding.mesh.devices.shape == split
    assert sharding.spec == P("matrices", "rows")


@given(st.integers(1, 300), st.integers(1, 100), st.sampled_from([1, 2, 3, 6, 8, 16, 64]))
def test_every_device_has_a_share_and_none_more_than_whole_matrices_would_give(
    count, rows, devices
):
    sharding = stack_sharding((count, rows, 1), mesh_of(devices))
    matrices, sharing = sharding.mesh.devices.shape
    assert matrices * sharing == devices and rows % sharing == 0
    whole = count + -count % matrices  # as the batch is filled
    share, of_rows, _ = sharding.shard_shape((whole, rows, 1))
    assert share * of_rows <= -(-count // devices) * rows
    # No more devices could share a matrix without taking turns.
    finer = [n for n in range(sharing + 1, devices + 1) if devices % n == 0 and rows % n == 0]
    assert all(devices // n < count for n in finer)


ON_MESHES = """
import json
import jax, numpy as np, optax
from pivq_jax.common.parallel import make_mesh, shardings_of
from pivq_jax.training.optimizer import orthogonalize

shapes = {shapes!r}
rng = np.random.default_rng(0)
kernels = {{name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}}
one = jax.devices()[:1]
meshes = {{"1": make_mesh(devices=one), "8x1": make_mesh(1), "2x4": make_mesh(4)}}

def on(mesh):
    transformation = orthogonalize(mesh)
    places = shardings_of(kernels, mesh)
    update = jax.jit(
        lambda kernels: transformation.update(kernels, optax.EmptyState())[0],
        in_shardings=(places,),
        out_shardings=places,
    )
    compiled = update.lower(kernels).compile()
    split = sum(not place.is_fully_replicated for place in jax.tree.leaves(places))
    found = compiled(jax.device_put(kernels, places))
    return jax.device_get(found), compiled.cost_analysis()["flops"], split

result = {{name: on(mesh) for name, mesh in meshes.items()}}
found = {{f"{{name}}/{{key}}": x for name in result for key, x in result[name][0].items()}}
np.savez({result!r}, **found)
print(json.dumps({{name: values[1:] for name, values in result.items()}}))
"""


def test_eight_devices_share_the_iterations_out_and_find_what_one_does(commands, tmp_path):
    shapes = {
        **{f"square_{i}": (128, 128) for i in range(9)},  # more than devices
        **{f"wide_{i}": (64, 256) for i in range(2)},  # with the next, three
        "upright": (256, 64),
        "alone": (96, 384),
        "conv": (3, 3, 16, 64),
        "odd": (15, 21),  # that two devices cannot share
    }
    file = tmp_path / "result.npz"
    done = commands.run(code=ON_MESHES.format(shapes=shapes, result=str(file)), devices=8)
    assert done.code == 0, done.stderr
    flops = {name: values[0] for name, values in json.loads(done.stdout).items()}
    split = {name: values[1] for name, values in json.loads(done.stdout).items()}
    assert split["1"] == split["8x1"] == 0 < split["2x4"]  # parameters lie apart there

    rng = np.random.default_rng(0)
    drawn_here = {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    whole = orthogonalised(drawn_here)
    with np.load(file) as found:
        for mesh, name in itertools.product(("1", "8x1", "2x4"), shapes):
            # Rows are summed over in parts.
            np.testing.assert_allclose(
                found[f"{mesh}/{name}"], whole[name], atol=1e-5, err_msg=f"{name} on {mesh}"
            )

    def least_flops(shape: tuple[int, ...]) -> int:
        n, m = sorted((math.prod(shape[:-1]), shape[-1]))
        if m < 2 * n:
            return 5 * (4 * n * n * m + 2 * n**3)
        return 8 * n * n * m + 28 * n**3  # on two Gram matrices

    # A little more is needed for sums.
    least = sum(map(least_flops, shapes.values()))
    assert least < flops["1"] < 1.2 * least
    for mesh in ("8x1", "2x4"):
        assert flops[mesh] < flops["1"] / 4, mesh
