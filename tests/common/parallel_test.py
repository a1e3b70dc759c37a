"""Eight fake devices, of one process or of two, against one: the same training and codes."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from pivq_jax.common import parallel
from pivq_jax.common.errors import InputError
from pivq_jax.common.lock import DirectoryLock, lock_directory
from pivq_jax.common.parallel import (
    join_processes,
    make_mesh,
    map_over_batch,
    over_batch,
    put_batch,
    shardings_of,
)
from pivq_jax.config.check import check_devices
from tests.conftest import TINY, full_disk, start_pair

COMPARE = """
import json, sys
from functools import partial
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from pivq_jax.config import load_config
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.objective import Phase
from pivq_jax.common.parallel import (
    join_processes, make_mesh, map_over_batch, put_batch, replicated
)
from pivq_jax.model.quantizer import assign, match_latents
from pivq_jax.training.build import load_networks
from pivq_jax.training.steps import Steps

join_processes({processes!r})
config = load_config("toon_faces").with_fields({{"loss.recombination_warmup": 0.0}})
images = np.load({images!r})
size = config.train.batch_size

def batch(step, mesh):
    rows = np.arange(step * size, (step + 1) * size) % len(images)
    rows = rows.reshape(jax.process_count(), -1)[jax.process_index()]  # as the pipeline deals them
    return put_batch(images[rows], mesh)

meshes = {{
    **({{"1": make_mesh(devices=jax.devices()[:1])}} if jax.process_count() == 1 else {{}}),
    **{{f"{{8 // fsdp}}x{{fsdp}}": make_mesh(fsdp) for fsdp in {fsdp!r}}},
}}
result = {{"continuous": {{}}, "quantized": {{}}, "codes": {{}}, "split": {{}}}}
lpips = {{n: load_networks(config, mesh) for n, mesh in meshes.items()}}
every = {{n: Steps(config, m) for n, m in meshes.items()}}
for n, mesh in meshes.items():
    state, losses = every[n].create(), []
    for step in range(20):
        state, metrics = every[n].train(state, batch(step, mesh), lpips[n], Phase.CONTINUOUS)
        losses.append(float(metrics["loss"]))
    result["continuous"][n] = losses
    if n == "1":
        latents = [every[n].latents(state.params, batch(i, mesh)) for i in range(8)]
        every_latent = jnp.stack(latents)
        with Checkpoints(Path({workdir!r})) as checkpoints:
            checkpoints.save(20, every[n].initialise(state, every_latent), {{}})
for n, mesh in meshes.items():
    with Checkpoints(Path({workdir!r})) as checkpoints:
        state, _ = checkpoints.restore(jax.eval_shape(every[n].create), mesh)
    latents = every[n].latents(state.params, batch(20, mesh))
    codebook = state.params["quantizer"]["codebook"]
    matcher = map_over_batch(match_latents, mesh)
    match = partial(assign, kind=config.quantizer.kind, matcher=matcher)
    codes, _ = jax.jit(match, out_shardings=replicated(mesh))(latents, codebook)
    result["codes"][n] = jnp.sort(codes, -1).tolist()
    losses = []
    for step in range(20, 25):
        state, metrics = every[n].train(state, batch(step, mesh), lpips[n], Phase.QUANTIZED)
        losses.append(float(metrics["loss"]))
    result["quantized"][n] = losses
    result["split"][n] = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
if jax.process_index() == 0:
    print(json.dumps(result))
"""


@pytest.mark.slow
def test_eight_devices_train_the_default_config_as_one_does(commands, faces, tmp_path):
    images = np.pad(faces, ((0, 0), (8, 8), (8, 8), (0, 0)), constant_values=255)
    np.save(tmp_path / "images.npy", images)

    def code(fsdp: tuple[int, ...], processes: str = "") -> str:
        return COMPARE.format(
            fsdp=fsdp,
            processes=processes,
            images=str(tmp_path / "images.npy"),
            workdir=str(tmp_path / "run"),
        )

    done = commands.run(code=code((1, 2, 8)), devices=8)
    assert done.code == 0, done.stderr
    pair = start_pair(lambda _, how: commands.start(code=code((1,), how), devices=4))
    several = [command.wait() for command in pair]
    assert [one.code for one in several] == [0, 0], [one.stderr for one in several]
    result = json.loads(done.stdout)
    for name, values in json.loads(several[0].stdout.splitlines()[-1]).items():
        result[name]["2 processes"] = values["8x1"]
    continuous, quantized = result["continuous"], result["quantized"]
    assert len(continuous["1"]) == 20 and len(quantized["1"]) == 5
    assert continuous["1"][-1] < continuous["1"][0]  # they train
    assert result["split"]["1"] == 0
    for name in ["2 processes", "8x1", "4x2", "1x8"]:
        assert (result["split"][name] > 0) == (name in ("4x2", "1x8")), name
        np.testing.assert_allclose(continuous[name], continuous["1"], rtol=1e-4, err_msg=name)
        codes, expected = np.array(result["codes"][name]), np.array(result["codes"]["1"])
        assert np.mean(codes == expected) >= 0.999, name
        assert quantized[name][0] == pytest.approx(quantized["1"][0], rel=1e-3), name


USE = """
import numpy as np, jax, pivq_jax
model = pivq_jax.from_pretrained("toon_faces")
assert model.mesh.size == {devices}
codes = model.parents[:16]
images = model.decode(codes)
visible = np.arange(64)[:, None] >= np.full(64, 32)
a, b, key = jax.device_put(codes[:3], jax.devices()[0]), codes[2::-1], jax.random.key(0)
found = {{
    **{{f"encoded_{{n}}": model.encode(images[:n]) for n in (1, 5, 16)}},
    "edited": model.edit(codes[:3], hair="bun", eyes="wide"),
    "recombined": model.recombine(a, b, key, prior=True),
    "sets": model.complete_sets(a[:, :12], key),
}}
completed = model.complete(images[:3], visible)
np.savez({result!r}, images=images, completed=completed, **found)
"""


@pytest.mark.slow
def test_eight_devices_encode_edit_recombine_and_complete_as_one_does(commands, tmp_path):
    results = []
    for devices in (1, 8):
        path = tmp_path / f"{devices}.npz"
        done = commands.run(code=USE.format(devices=devices, result=str(path)), devices=devices)
        assert done.code == 0, done.stderr
        results.append(np.load(path))
    one, eight = results
    np.testing.assert_allclose(eight["images"], one["images"], atol=1e-5)
    for name in ("encoded_1", "encoded_5", "encoded_16", "edited", "recombined", "sets"):
        np.testing.assert_array_equal(eight[name], one[name], err_msg=name)
    # Rounding may lead the search elsewhere.
    assert np.mean(eight["completed"] == one["completed"]) > 0.6


def test_batches_and_functions_of_them_are_the_same_over_all_devices():
    mesh = make_mesh()
    assert mesh.size == jax.device_count() and mesh.axis_names == ("data", "fsdp")
    rows = np.arange(8 * mesh.size, dtype=np.int32).reshape(-1, 2)
    batch = put_batch(rows, mesh)
    np.testing.assert_array_equal(batch, rows)
    assert batch.sharding.is_equivalent_to(over_batch(mesh), 2)

    def scale(x, y):
        return x * y.sum(), x.sum(-1)

    shared = jnp.arange(4)
    mapped = map_over_batch(scale, mesh)(batch, shared)
    for ours, expected in zip(mapped, scale(rows, shared), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_large_arrays_are_split_along_their_largest_axis_that_fits():
    mesh = AbstractMesh((2, 4), ("data", "fsdp"), (AxisType.Auto,) * 2)
    shapes = {
        "largest": (128, 512),
        "first_of_equals": (256, 256),
        "only_divisible": (64, 1023),
        "indivisible": (333, 333),
        "small": (64, 64),
        "scalar": (),
    }
    state = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = {name: sharding.spec for name, sharding in shardings_of(state, mesh).items()}
    assert found == {
        "largest": P(None, "fsdp"),
        "first_of_equals": P("fsdp"),
        "only_divisible": P("fsdp"),
        "indivisible": P(),
        "small": P(),
        "scalar": P(),
    }


STATE_ON = """
import json
from pathlib import Path
import jax, numpy as np
from pivq_jax.config import load_config
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.objective import Phase
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.training.steps import Steps

config = load_config("image_folder:smoke").with_fields({fields!r})
images = np.load({images!r})[: config.train.batch_size]
meshes = {{"1x8": make_mesh(8), "1": make_mesh(devices=jax.devices()[:1]), "2x4": make_mesh(4)}}
every = {{n: Steps(config, m) for n, m in meshes.items()}}

def step(state, name):
    batch = put_batch(images, meshes[name])
    return every[name].train(state, batch, {{}}, Phase.CONTINUOUS)

state, _ = step(every["1x8"].create(), "1x8")
saved = jax.device_get(state)
with Checkpoints(Path({workdir!r})) as checkpoints:
    checkpoints.save(1, state, {{}})
result = {{"loss": {{"1x8": float(step(state, "1x8")[1]["loss"])}}, "split": {{}}}}
for name in ("1", "2x4"):
    with Checkpoints(Path({workdir!r})) as checkpoints:
        state, _ = checkpoints.restore(jax.eval_shape(every[name].create), meshes[name])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), saved)
    result["split"][name] = sum(len(x.sharding.device_set) > 1 and
        not x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
    result["loss"][name] = float(step(state, name)[1]["loss"])
print(json.dumps(result))
"""


@pytest.mark.slow
def test_a_state_of_eight_devices_is_restored_onto_others(commands, faces, tmp_path):
    np.save(tmp_path / "images.npy", faces[:, ::3, ::3])
    # Wide enough for some parameters to be split.
    fields = {**TINY, "model.width": 64, "loss.recombination_warmup": 0.0}
    code = STATE_ON.format(
        fields=fields, images=str(tmp_path / "images.npy"), workdir=str(tmp_path / "run")
    )
    done = commands.run(code=code, devices=8)
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["split"]["1"] == 0 < result["split"]["2x4"]
    for name in ("1", "2x4"):
        assert result["loss"][name] == pytest.approx(result["loss"]["1x8"], rel=1e-5), name


NOT_RECOMBINED = {"loss.recombination": 0.0, "adversarial.recombined_weight": 0.0}


@pytest.mark.parametrize(
    "devices, fields, message",
    [
        (8, {"mesh.fsdp": 3}, r"fsdp = 3 does not divide the 8 .*: use one of 1, 2, 4, 8"),
        (8, {"train.batch_size": 8}, "not divisible by twice 8 devices: use a multiple of 16"),
        (4, {"train.batch_size": 12, "train.accumulation": 2}, "use a multiple of 16"),
        (8, {"train.batch_size": 12, **NOT_RECOMBINED}, "by 8 devices: use a multiple of 8,"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(tiny_config, devices, fields, message):
    with pytest.raises(InputError, match=message):
        check_devices(tiny_config.with_fields(fields), devices)


@pytest.mark.parametrize("how", ["10.0.0.1,2,0", "10.0.0.1:80,2", "10.0.0.1:80,2,2", "some"])
def test_mistakes_in_the_flag_for_processes_are_refused(how):
    with pytest.raises(InputError, match=r"--distributed=.*ADDRESS:PORT,COUNT,INDEX"):
        join_processes(how)


def test_processes_that_cannot_be_joined_are_one_clear_error(monkeypatch):
    def fail(*_: object, initialization_timeout: int) -> None:
        raise RuntimeError(*said)

    said: list[str] = []
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match=r"--distributed=auto: RuntimeError: .*under Slurm"):
        join_processes("auto")
    said.append("DEADLINE_EXCEEDED: Barrier timed out")  # which is no mistake
    with pytest.raises(OSError, match="the other processes were not found: DEADLINE_EXCEEDED"):
        join_processes("10.0.0.1:80,2,0")


@pytest.mark.parametrize("length", [5, 5_000])
def test_values_that_differ_in_their_last_character_differ(second_process, length):
    """Such as a long --workdir."""
    values = [{"seed": 0, "workdir": "a" * (length - 1) + last} for last in "ab"]
    first, second = (lambda own=own: parallel.check_alike(own, "start alike") for own in values)
    second_process(first, first)
    with pytest.raises(InputError, match=r"process 1 has workdir = .*: start alike$") as refused:
        second_process(first, second)
    assert len(str(refused.value)) < 300


def test_weights_are_compared_by_name_shape_type_and_value(second_process):
    def check(**arrays: Any) -> Callable[[], None]:
        return lambda: parallel.check_same_arrays("weights", {"a": arrays}, "give one file")

    weights = np.arange(6, dtype=np.float32)
    second_process(check(b=weights), check(b=weights.copy()))
    for other in (
        {"c": weights},
        {"b": weights.reshape(2, 3)},
        {"b": weights.view(np.int32)},
        {"b": weights + np.float32(1e-6)},
    ):
        with pytest.raises(InputError, match=r"process 1 has weights = .*: give one file$"):
            second_process(check(b=weights), check(**other))


def test_all_processes_hear_why_the_first_failed(tmp_path, monkeypatch, second_process):
    """A full disk is no mistake in the input."""

    def fail() -> None:
        with pytest.raises((InputError, OSError), match=message) as failed:
            lock_directory(tmp_path).__enter__()
        assert failed.type is kind

    kind, message = InputError, f"by process {os.getpid()}"
    with DirectoryLock(tmp_path):
        second_process(fail, fail)
    kind, message = OSError, "No space left"
    monkeypatch.setattr("pivq_jax.common.lock.write_atomically", full_disk)
    second_process(fail, fail)
    assert not list(tmp_path.iterdir())


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """A GPU as JAX shows it, which numbers machines as slices."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"
    process_index: int = 0


def test_devices_of_several_machines_are_one_mesh():
    devices = [FakeDevice(index, slice_index=index // 4) for index in range(8)]
    mesh = make_mesh(2, cast(Any, devices[::-1]))
    assert mesh.shape == {"data": 4, "fsdp": 2}
    assert [device.id for device in mesh.devices.flat] == [*range(8)]  # neighbours share a state
