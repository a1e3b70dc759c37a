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
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from pivq_jax.common import parallel
from pivq_jax.common.errors import InputError
from pivq_jax.common.lock import DirectoryLock, lock_directory
from pivq_jax.common.parallel import (
    join_processes,
    make_mesh,
    map_over_batch,
    over_batch,
    put_batch,
    replicated,
    shardings_of,
)
from pivq_jax.config.check import check_devices
from tests.conftest import full_disk, start_pair

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
config = load_config("{config}:{variants}").with_fields({fields!r})
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


def check_devices_agree(
    commands, images, tmp_path, config: str, variants: str, fields: dict, fsdp: tuple[int, ...]
) -> None:
    """Compares what `COMPARE` prints of one device, the meshes of eight, and two processes."""
    np.save(tmp_path / "images.npy", images)

    def code(fsdp: tuple[int, ...], processes: str = "") -> str:
        return COMPARE.format(
            config=config,
            variants=variants,
            fields=fields,
            fsdp=fsdp,
            processes=processes,
            images=str(tmp_path / "images.npy"),
            workdir=str(tmp_path / "run"),
        )

    done = commands.run(code=code(fsdp), devices=8)
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
    for name in ["2 processes", *(f"{8 // n}x{n}" for n in fsdp)]:
        assert (result["split"][name] > 0) == (name[-1] not in "1s"), name
        np.testing.assert_allclose(continuous[name], continuous["1"], rtol=1e-4, err_msg=name)
        codes, expected = np.array(result["codes"][name]), np.array(result["codes"]["1"])
        assert np.mean(codes == expected) >= 0.999, name
        assert quantized[name][0] == pytest.approx(quantized["1"][0], rel=1e-3), name


@pytest.mark.slow
def test_eight_devices_train_the_default_config_as_one_does(commands, faces, tmp_path):
    images = np.pad(faces, ((0, 0), (8, 8), (8, 8), (0, 0)), constant_values=255)
    fields = {"loss.recombination_warmup": 0.0}
    check_devices_agree(commands, images, tmp_path, "toon_faces", "", fields, (1, 2, 8))


CODES = """
import numpy as np, jax, pivq_jax
model = pivq_jax.load({workdir!r})
assert model.mesh.size == 8
images = np.load({images!r})
codes = {{f"codes_{{n}}": model.encode(images[:n]) for n in (1, 5, 16)}}
decoded = model.decode(codes["codes_5"])
np.savez({result!r}, decoded=decoded, **codes)
"""


@pytest.mark.slow
def test_a_run_of_one_device_is_loaded_by_eight(commands, tiny_run, tiny_model, faces, tmp_path):
    images = faces[:16, ::3, ::3].astype(np.float32) / 127.5 - 1
    np.save(tmp_path / "images.npy", images)
    code = CODES.format(
        workdir=str(tiny_run.workdir),
        images=str(tmp_path / "images.npy"),
        result=str(tmp_path / "result.npz"),
    )
    done = commands.run(code=code, devices=8)
    assert done.code == 0, done.stderr
    result = np.load(tmp_path / "result.npz")
    expected = np.asarray(tiny_model.encode(images))
    for count in (1, 5, 16):  # whether or not the devices divide it
        assert result[f"codes_{count}"].shape == (count, expected.shape[1])
        # Fewer rows a device round differently: other codes must be as near to the latents.
        for image, codes, wanted in zip(images, result[f"codes_{count}"], expected, strict=False):
            if not np.array_equal(codes, wanted):
                costs = [matching_cost(tiny_model, image, c) for c in (codes, wanted)]
                assert costs[0] == pytest.approx(costs[1], rel=1e-5)
    np.testing.assert_allclose(result["decoded"], tiny_model.decode(expected[:5]), atol=1e-5)


EDITS = """
import numpy as np, jax, pivq_jax
model = pivq_jax.from_pretrained("toon_faces")
assert model.mesh.size == {devices}
codes = model.parents[:3]
visible = np.arange(64)[:, None] >= np.full(64, 32)
edited = model.edit(codes, hair="bun", eyes="wide")
completed = model.complete(model.decode(codes), visible)
a, b, key = jax.device_put(codes, jax.devices()[0]), codes[::-1], jax.random.key(0)
found = {{
    "edited": edited,
    "recombined": model.recombine(a, b, key, prior=True),
    "sets": model.complete_sets(a[:, :12], key),
}}
np.savez({result!r}, completed=completed, **found)
"""


@pytest.mark.slow
def test_eight_devices_edit_recombine_and_complete_as_one_does(commands, tmp_path):
    results = []
    for devices in (1, 8):
        path = tmp_path / f"{devices}.npz"
        code = EDITS.format(devices=devices, result=str(path))
        done = commands.run(code=code, devices=devices)
        assert done.code == 0, done.stderr
        results.append(np.load(path))
    one, eight = results
    for name in ("edited", "recombined", "sets"):
        np.testing.assert_array_equal(eight[name], one[name])
    # Rounding may lead the search elsewhere.
    assert np.mean(eight["completed"] == one["completed"]) > 0.6


def matching_cost(model, image, codes) -> float:
    """The least total squared distance between an image's latents and the entries of its codes."""
    _, latents = model.encode_with_latents(image[None])
    cost = cdist(np.asarray(latents[0]), np.asarray(model.codebook)[codes], "sqeuclidean")  # f64
    return float(cost[linear_sum_assignment(cost)].sum())


def test_mesh_covers_all_devices_with_automatic_axes():
    mesh = make_mesh()
    assert mesh.size == jax.device_count() and mesh.axis_names == ("data", "fsdp")
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,) * 2


def test_batches_are_put_over_the_devices_unchanged():
    mesh = make_mesh()
    rows = np.arange(8 * mesh.size, dtype=np.uint8).reshape(-1, 2)
    batch = put_batch(rows, mesh)
    np.testing.assert_array_equal(batch, rows)
    assert batch.sharding.is_equivalent_to(over_batch(mesh), 2)
    assert replicated(mesh).is_fully_replicated


def test_map_over_batch_is_the_function_itself():
    def scale(x, y):
        return x * y.sum(), x.sum(-1)

    x, y = jnp.arange(6.0).reshape(3, 2), jnp.arange(4.0)
    mapped = map_over_batch(scale, make_mesh())(x, y)
    for ours, expected in zip(mapped, scale(x, y), strict=True):
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


def small_fields(tiny_config) -> dict:
    """Of the tiny config, but wide enough for some parameters to be split."""
    rooms = ("data", "model", "quantizer", "loss", "optimizer", "train")
    fields = {f"{room}.{name}": x for room in rooms for name, x in dict(tiny_config[room]).items()}
    return {**fields, "model.width": 64, "loss.recombination_warmup": 0.0}


@pytest.mark.slow
def test_a_state_of_eight_devices_is_restored_onto_others(commands, faces, tiny_config, tmp_path):
    np.save(tmp_path / "images.npy", faces[:, ::3, ::3])
    code = STATE_ON.format(
        fields=small_fields(tiny_config),
        images=str(tmp_path / "images.npy"),
        workdir=str(tmp_path / "run"),
    )
    done = commands.run(code=code, devices=8)
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["split"]["1"] == 0 < result["split"]["2x4"]
    for name in ("1", "2x4"):
        assert result["loss"][name] == pytest.approx(result["loss"]["1x8"], rel=1e-5), name


@pytest.mark.parametrize(
    "devices, fields, message",
    [
        (8, {"mesh.fsdp": 3}, r"fsdp = 3 does not divide the 8 .*: use one of 1, 2, 4, 8"),
        (8, {"mesh.fsdp": 16}, r"fsdp = 16 does not divide the 8 .*: use one of 1, 2, 4, 8"),
        (8, {"train.batch_size": 8}, "not divisible by twice 8 devices: use a multiple of 16"),
        (4, {"train.batch_size": 12, "train.accumulation": 2}, "use a multiple of 16"),
        (
            8,
            {
                "train.batch_size": 12,
                "loss.recombination": 0.0,
                "adversarial.recombined_weight": 0.0,
            },
            "not divisible by 8 devices: use a multiple of 8, or another number of devices$",
        ),
        (1, {"mesh.fsdp": 2}, r"the 1 device\(s\): use one of 1, or another number of devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(tiny_config, devices, fields, message):
    with pytest.raises(InputError, match=message):
        check_devices(tiny_config.with_fields(fields), devices)


def test_a_mesh_that_does_not_fit_is_refused_before_any_work(commands, tiny_arguments, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    done = commands.run(*tiny_arguments, "--config.mesh.fsdp=3", workdir, devices=8)
    assert done.code == 2 and "use one of 1, 2, 4, 8" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["10.0.0.1,2,0", "10.0.0.1:80,2", "10.0.0.1:80,2,2", "some"])
def test_mistakes_in_the_flag_for_processes_are_refused(how):
    with pytest.raises(InputError, match=r"--distributed=.*ADDRESS:PORT,COUNT,INDEX"):
        join_processes(how)


def test_auto_without_a_cluster_is_refused(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"--distributed=auto: .*under Slurm"):
        join_processes("auto")


def test_an_error_without_a_message_is_refused_by_its_name(monkeypatch):
    def fail(*_: object, initialization_timeout: int) -> None:
        raise RuntimeError(*said)

    said: list[str] = []
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match=r"--distributed=auto: RuntimeError: use auto"):
        join_processes("auto")
    said.append("DEADLINE_EXCEEDED: Barrier timed out")  # which is no mistake
    with pytest.raises(OSError, match="the other processes were not found: DEADLINE_EXCEEDED"):
        join_processes("10.0.0.1:80,2,0")


COMPILED = """
import jax, numpy as np
from launch.compiler import lower
from pivq_jax.config import load_config

config = load_config("ffhq").with_fields(
    {"mesh.fsdp": 8, "train.batch_size": 16, "train.accumulation": 1}
)
lowered, _ = lower(config, jax.devices())
state, _ = lowered.compile().output_shardings
shapes, _ = lowered.out_info
leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True))
whole = sum(x.size * x.dtype.itemsize for x, _ in leaves)
held = sum(np.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in leaves)
print(len(leaves), whole, int(held))
"""


@pytest.mark.slow
def test_the_compiled_ffhq_step_leaves_an_eighth_of_the_state_on_each_of_eight_devices(commands):
    done = commands.run(code=COMPILED, devices=8)
    assert done.code == 0, done.stderr
    leaves, whole, held = map(int, done.stdout.split())
    assert leaves > 1000 and whole > 2.3e9
    assert held <= 1.10 * whole / 8
    print(f"{held / 2**20:.0f} MiB of {whole / 2**20:.0f} MiB: {8 * held / whole:.3f} eighths")


def test_all_processes_hear_that_the_first_was_refused(tmp_path, monkeypatch):
    # Of this one, as if it were not the first, and of the first.
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(parallel, "from_first_process", lambda text: text or "InputError in use")
    with pytest.raises(InputError, match="in use"), lock_directory(tmp_path):
        pass
    monkeypatch.undo()
    refused = pytest.raises(InputError, match=f"by process {os.getpid()}")
    with DirectoryLock(tmp_path), refused, lock_directory(tmp_path):
        pass
    with lock_directory(tmp_path):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [5, 99, 100, 101, 5_000])
def test_values_that_differ_in_their_last_character_differ(second_process, length):
    """Such as a long --workdir."""
    values = [{"seed": 0, "workdir": "a" * (length - 1) + last} for last in "ab"]
    first, second = (lambda own=own: parallel.check_alike(own, "start alike") for own in values)
    second_process(first, first)
    with pytest.raises(InputError, match=r"process 1 has workdir = .*: start alike$") as refused:
        second_process(first, second)
    assert len(str(refused.value)) < 300


def test_weights_are_compared_by_name_shape_and_value(second_process):
    def check(**arrays: Any) -> Callable[[], None]:
        return lambda: parallel.check_same_arrays("weights", {"a": arrays}, "give one file")

    weights = np.arange(6, dtype=np.float32)
    second_process(check(b=weights), check(b=weights.copy()))
    for other in (
        {"c": weights},
        {"b": weights.reshape(2, 3)},
        {"b": weights.view(np.int32)},
        {"b": weights + np.float32(1e-6)},
        {},
    ):
        with pytest.raises(InputError, match=r"process 1 has weights = .*: give one file$"):
            second_process(check(b=weights), check(**other))


def test_a_full_disk_is_no_mistake_in_the_input(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(parallel, "from_first_process", lambda text: sent.append(text) or text)
    monkeypatch.setattr("pivq_jax.common.lock.write_atomically", full_disk)
    with pytest.raises(OSError, match="No space left"), lock_directory(tmp_path):
        pass
    # In the other processes.
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(parallel, "from_first_process", lambda text: text or sent[0])
    with pytest.raises(OSError, match="No space left"), lock_directory(tmp_path):
        pass


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
