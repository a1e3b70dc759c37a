"""Eight fake devices against one: the same training and the same codes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from pivq_jax.parallel import (
    make_mesh,
    map_over_batch,
    over_batch,
    put_batch,
    replicated,
    shardings_of,
)

COMPARE = """
import json, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from configs.{config} import get_config
from pivq_jax.checkpoints import Checkpoints
from pivq_jax.model.pivq import pivq_from_config
from pivq_jax.objective import Phase
from pivq_jax.parallel import make_mesh, put_batch
from pivq_jax.quantizer import assign
from pivq_jax.train import frozen_from_config, steps_from_config

config = get_config({variants!r})
config.update_from_flattened_dict({fields!r})
images = np.load({images!r})
size = config.train.batch_size

def batch(step, mesh):
    rows = np.arange(step * size, (step + 1) * size) % len(images)
    return put_batch({{"image": images[rows]}}, mesh)["image"]

meshes = {{
    "1": make_mesh(devices=jax.devices()[:1]),
    **{{f"{{8 // fsdp}}x{{fsdp}}": make_mesh(fsdp) for fsdp in {fsdp!r}}},
}}
result = {{"continuous": {{}}, "quantized": {{}}, "codes": {{}}, "split": {{}}}}
frozen = {{n: frozen_from_config(config, mesh) for n, mesh in meshes.items()}}
every = {{n: steps_from_config(config, pivq_from_config(config, m), m) for n, m in meshes.items()}}
for n, mesh in meshes.items():
    state, losses = every[n].create(), []
    for step in range(20):
        state, metrics = every[n].train(state, batch(step, mesh), frozen[n], Phase.CONTINUOUS)
        losses.append(float(metrics["loss"]))
    result["continuous"][n] = losses
    if n == "1":
        latents = [every[n].latents(state.params, batch(i, mesh)) for i in range(8)]
        flat = jnp.concatenate(latents).reshape(-1, config.model.code_dim)
        checkpoints = Checkpoints(Path({workdir!r}))
        checkpoints.save(20, every[n].initialise(state, flat), {{}})
        checkpoints.close()
for n, mesh in meshes.items():
    checkpoints = Checkpoints(Path({workdir!r}))
    state, _ = checkpoints.restore(jax.eval_shape(every[n].create), mesh)
    checkpoints.close()
    latents = every[n].latents(state.params, batch(20, mesh))
    codes, _ = assign(latents, state.params["quantizer"]["codebook"], config.quantizer.kind)
    result["codes"][n] = jnp.sort(codes, -1).tolist()
    losses = []
    for step in range(20, 25):
        state, metrics = every[n].train(state, batch(step, mesh), frozen[n], Phase.QUANTIZED)
        losses.append(float(metrics["loss"]))
    result["quantized"][n] = losses
    result["split"][n] = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
print(json.dumps(result))
"""


def compare(
    commands, images, tmp_path, config: str, variants: str, fields: dict, fsdp: tuple[int, ...]
) -> dict:
    np.save(tmp_path / "images.npy", images)
    code = COMPARE.format(
        config=config,
        variants=variants,
        fields=fields,
        fsdp=fsdp,
        images=str(tmp_path / "images.npy"),
        workdir=str(tmp_path / "run"),
    )
    done = commands.run(code=code, devices=8)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def check(result: dict, fsdp: tuple[int, ...]) -> None:
    continuous, quantized = result["continuous"], result["quantized"]
    assert len(continuous["1"]) == 20 and len(quantized["1"]) == 5
    assert continuous["1"][-1] < continuous["1"][0]  # they train
    assert result["split"]["1"] == 0
    for n in fsdp:
        name = f"{8 // n}x{n}"
        assert (result["split"][name] > 0) == (n > 1), name
        np.testing.assert_allclose(continuous[name], continuous["1"], rtol=1e-4, err_msg=name)
        codes, expected = np.array(result["codes"][name]), np.array(result["codes"]["1"])
        assert np.mean(codes == expected) >= 0.999, name
        assert quantized[name][0] == pytest.approx(quantized["1"][0], rel=1e-3), name


def test_eight_devices_train_as_one_does(commands, faces, tiny_config, tmp_path):
    fields: dict = {"model.width": 64}  # so that some parameters are large enough to be split
    for room in ("data", "model", "quantizer", "loss", "optimizer", "train"):
        fields = {f"{room}.{name}": value for name, value in tiny_config[room].items()} | fields
    images = np.ascontiguousarray(faces[:, ::3, ::3])
    check(compare(commands, images, tmp_path, "image_folder", "smoke", fields, (1, 8)), (1, 8))


@pytest.mark.slow
def test_eight_devices_train_the_default_config_as_one_does(commands, faces, tmp_path):
    images = np.pad(faces, ((0, 0), (8, 8), (8, 8), (0, 0)), constant_values=255)
    check(compare(commands, images, tmp_path, "toon_faces", "", {}, (1, 2, 8)), (1, 2, 8))


CODES = """
import numpy as np, jax, pivq_jax
model = pivq_jax.load({workdir!r})
assert model.mesh.size == 8
images = np.load({images!r})
codes = {{f"codes_{{n}}": model.encode(images[:n]) for n in (1, 5, 16)}}
decoded = model.decode(codes["codes_5"])
np.savez({result!r}, decoded=decoded, **codes)
"""


def test_a_run_of_one_device_is_loaded_by_eight(commands, trained, trained_model, faces, tmp_path):
    images = np.pad(faces[:16], ((0, 0), (8, 8), (8, 8), (0, 0))).astype(np.float32) / 127.5 - 1
    np.save(tmp_path / "images.npy", images)
    code = CODES.format(
        workdir=str(trained.workdir),
        images=str(tmp_path / "images.npy"),
        result=str(tmp_path / "result.npz"),
    )
    done = commands.run(code=code, devices=8)
    assert done.code == 0, done.stderr
    result = np.load(tmp_path / "result.npz")
    expected = np.asarray(trained_model.encode(images))
    for count in (1, 5, 16):  # whether or not the devices divide it
        np.testing.assert_array_equal(result[f"codes_{count}"], expected[:count])
    np.testing.assert_allclose(result["decoded"], trained_model.decode(expected[:5]), atol=1e-5)


def test_mesh_covers_all_devices_with_automatic_axes():
    mesh = make_mesh()
    assert mesh.size == jax.device_count() and mesh.axis_names == ("data", "fsdp")
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,) * 2


def test_batches_are_put_over_the_devices_unchanged():
    mesh = make_mesh()
    rows = np.arange(8 * mesh.size, dtype=np.uint8).reshape(-1, 2)
    batch = put_batch({"image": rows}, mesh)["image"]
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
    assert map_over_batch(scale, None) is scale


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
