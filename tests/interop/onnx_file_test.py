"""ONNX files beside JAX: onnxruntime gives the same latents and images."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from flax import traverse_util

from pivq_jax.common.errors import InputError
from pivq_jax.config import Config, load_config
from pivq_jax.config.loader import experiments
from pivq_jax.interop import onnx_graph, write_onnx
from pivq_jax.interop.onnx_file import onnx_paths
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.model.pivq import pivq_from_config
from tests.conftest import stop_at_second_file
from tests.parameters import draw_like

TOLERANCE = 1e-4
# Beyond the configs as they are: what else decides which layers there are.
VARIANTS = {
    "positional, local": {
        "quantizer.kind": "positional",
        "model.output": "conv",
        "model.local_output": True,
    },
    "nearest, patches": {"quantizer.kind": "nearest", "model.output": "patch"},
    "many codes, no set blocks": {"model.num_codes": 128, "model.set_depth": 0},
    "deep, wide": {
        "model.set_depth": 2,
        "model.decoder_depth": 2,
        "model.encoder_depth": 3,
        "model.mlp_ratio": 2,
        "model.heads": 4,
        "model.code_dim": 8,
    },
}


def random_params(config: Config) -> Any:
    """Weights of the size of trained ones; images stay well within [-1, 1] and are not clipped."""

    def reduce(path: tuple[Any, ...], values: np.ndarray) -> np.ndarray:
        if path[-1].key == "deviations":  # which are positive, and those of an image's values small
            return (0.1 + np.abs(values)) / 5
        if path[-1].key == "mean":
            return values / 10
        if path[-1].key == "basis":
            return values / len(values) ** 0.5
        last = ("pixels/kernel", "pixels/bias", "local_output/kernels")
        return values / 20 if "/".join(part.key for part in path).endswith(last) else values

    params = draw_like(model_shapes(config), np.random.default_rng(0))
    return jax.tree_util.tree_map_with_path(reduce, jax.device_get(params))


def inputs(config: Config, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, and vectors of the decoder's input."""
    rng, size, model = np.random.default_rng(1), config.data.image_size, config.model
    images = rng.uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    vectors = rng.normal(size=(batch, model.num_codes, model.code_dim)).astype(np.float32)
    return images, vectors


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """The output of an ONNX file for one input."""
    session = onnxruntime.InferenceSession(path)
    (source,) = session.get_inputs()
    return session.run(None, {source.name: x})[0]


def compare(config: Config, folder: Path, batches: tuple[int, ...] = (2,)) -> None:
    """Write a model with random weights, and compare its networks with those in JAX."""
    config = config.with_fields({"model.dtype": "float32"})
    params, model = random_params(config), pivq_from_config(config)
    write_onnx(folder / "model.onnx", params, {"config": config.to_dict()})
    encoder, decoder, codes = onnx_paths(folder / "model.onnx")
    for batch in batches:
        images, vectors = inputs(config, batch)
        latents = jax.jit(lambda x: model.apply({"params": params}, x, method="latents"))(images)
        np.testing.assert_allclose(run(encoder, images), latents, rtol=0, atol=TOLERANCE)
        decode = jax.jit(lambda x: model.apply({"params": params}, x, method="decode_vectors"))
        expected = np.asarray(decode(vectors))
        assert expected.std() > 0.01 and np.abs(expected).max() < 1
        np.testing.assert_allclose(run(decoder, vectors), expected, rtol=0, atol=TOLERANCE)
    arrays = safetensors.numpy.load_file(codes)
    assert arrays.keys() == {"codebook"}
    np.testing.assert_array_equal(arrays["codebook"], params["quantizer"]["codebook"])


def smoke(name: str = "toon_faces") -> Config:
    return load_config(f"{name}:smoke")


def test_any_batch_gives_what_jax_gives(tmp_path):
    compare(smoke(), tmp_path, batches=(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(experiments()) - {"toon_faces"}))
def test_every_config_gives_what_jax_gives(name, tmp_path):
    compare(smoke(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_what_jax_gives(name, tmp_path):
    compare(smoke().with_fields(VARIANTS[name]), tmp_path)


@pytest.mark.slow
def test_the_default_model_gives_what_jax_gives(tmp_path):
    compare(load_config("toon_faces"), tmp_path)


def tiny() -> Config:
    return smoke("celeba").with_fields({"model.width": 8, "model.heads": 1})


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A bfloat16 model of width 8, with training codes."""
    config = tiny()
    path = tmp_path_factory.mktemp("onnx") / "deep" / "tiny.onnx"
    description = {"config": config.to_dict(), "step": 7}
    training_codes = np.asfortranarray(np.arange(12).reshape(2, 6))
    write_onnx(str(path), random_params(config), description, training_codes)
    return path


def test_a_decoder_is_never_beside_the_encoder_of_other_weights(written, tmp_path, monkeypatch):
    folder, config = Path(shutil.copytree(written.parent, tmp_path / "copy")), tiny()
    stop_at_second_file(monkeypatch, folder)
    with pytest.raises(KeyboardInterrupt):
        write_onnx(folder / "tiny.onnx", random_params(config), {"config": config.to_dict()})
    assert [path.name for path in folder.iterdir()] == ["tiny.encoder.onnx"]


def test_a_model_is_three_files_and_each_says_what_it_is(written):
    names = {path.name for path in written.parent.iterdir()}
    assert names == {"tiny.codes.safetensors", "tiny.decoder.onnx", "tiny.encoder.onnx"}
    encoder, decoder, codes = onnx_paths(written)
    for path in (encoder, decoder):
        (entry,) = onnx.load(path).metadata_props
        description = json.loads(entry.value)
        assert entry.key == "pivq_jax" and description["step"] == 7
        assert description["config"]["model"]["width"] == 8
    with safetensors.safe_open(codes, "numpy") as file:
        assert json.loads(file.metadata()["pivq_jax"])["step"] == 7
        np.testing.assert_array_equal(file.get_tensor("training_codes"), [range(6), range(6, 12)])
        assert file.get_tensor("training_codes").dtype == np.int32


def test_every_weight_is_in_a_file_under_its_name(written):
    names = set[str]()
    for path in onnx_paths(written)[:2]:
        graph = onnx.load(path).graph
        onnx.checker.check_model(path, full_check=True)
        names |= {weight.name for weight in graph.initializer}
        assert all(axis.dim[0].dim_param == "batch" for axis in shapes(graph))
        assert {weight.data_type for weight in graph.initializer} == {
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.INT64,
        }
    params = model_shapes(smoke("celeba"))
    del params["quantizer"]
    assert names > set(traverse_util.flatten_dict(params, sep="/"))


def shapes(graph: onnx.GraphProto) -> list[Any]:
    return [end.type.tensor_type.shape for end in (*graph.input, *graph.output)]


def test_a_model_that_is_too_large_is_refused_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 1_000)
    with pytest.raises(InputError, match=r"the encoder has [\d,]+ bytes .* at most 1,000: export"):
        write_onnx(tmp_path / "m.onnx", random_params(smoke()), {"config": smoke().to_dict()})
    assert not any(tmp_path.iterdir())


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"needs the package onnx: pip install onnx"):
        write_onnx(tmp_path / "m.onnx", random_params(smoke()), {"config": smoke().to_dict()})
    assert not any(tmp_path.iterdir())
