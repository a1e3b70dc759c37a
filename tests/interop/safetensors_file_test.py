"""What a file from elsewhere says of its model is checked as what a person writes is."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import pack_arrays
from pivq_jax.config import Config
from pivq_jax.interop.safetensors_file import model_shapes, pack_model, read_model
from pivq_jax.model import layers
from pivq_jax.model.pivq import pivq_from_config


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.safetensors"


def write(file: Path, section: str, **fields: Any) -> None:
    """Writes an untrained model whose config has other values of some fields."""
    sizes = {"data.image_size": 8, "model.patch_size": 4, "model.width": 8, "model.heads": 1}
    config = Config().with_fields(sizes)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), model_shapes(config))
    values = config.to_dict()
    if section:
        values[section] |= fields
    else:
        values |= fields
    file.write_bytes(pack_model(params, {"config": values}))


LARGE = {
    "images at a time": ("evaluate", {"batch_size": 2**31 - 1}, "at most 8,192"),
    "samples": ("sample", {"count": 2**31 - 1}, "at most 10,000,000"),
    "rows": ("sample", {"interpolations": 2**31 - 1}, "at most 1,024"),
    "name": ("", {"name": "\x1b[2J"}, r"name = '\\x1b"),
}


@pytest.mark.parametrize("name", LARGE)
def test_its_config_has_the_limits_of_one_that_a_person_writes(path, name):
    section, fields, message = LARGE[name]
    write(path, section, **fields)
    with pytest.raises(InputError, match=message) as refused:
        read_model(path)
    assert str(refused.value).isprintable()


def test_its_paths_are_not_kept(path):
    write(path, "data", name="image_folder", path="/")
    assert read_model(path)[1]["config"]["data"]["path"] == ""
    write(path, "evaluate", features_path="https://example.org/x.pth#sha256=0")
    assert read_model(path)[1]["config"]["evaluate"]["features_path"] == ""
    write(path, "loss", perceptual_weights="/etc/passwd")
    assert read_model(path)[1]["config"]["loss"]["perceptual_weights"] == ""


KINDS = {
    "queries": {},
    "positional": {"quantizer.kind": "positional"},
    "patch output": {"model.output": "patch", "model.local_output": True, "model.set_depth": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_stacks_are_those_of_the_whole_network(kind):
    sizes = {"data.image_size": 16, "model.patch_size": 4, "model.width": 8, "model.heads": 1}
    depths = {"model.encoder_depth": 3, "model.set_depth": 2, "model.decoder_depth": 4}
    config = Config().with_fields(sizes | depths | KINDS[kind])
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    whole = jax.eval_shape(pivq_from_config(config).init, jax.random.key(0), image)["params"]
    assert model_shapes(config) == whole


def test_a_model_that_does_not_fit_gets_five_faults_and_a_count(path):
    write(path, "model", width=8, encoder_depth=128, set_depth=128, decoder_depth=128)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["pivq_jax"])
    described["config"]["model"]["width"] = 16
    arrays = {"a" * 10**5: np.zeros(1, np.float32)}
    path.write_bytes(pack_arrays(arrays, {"pivq_jax": json.dumps(described)}))
    with pytest.raises(InputError, match=r"; and [\d,]+ more$") as refused:
        read_model(path)
    assert len(str(refused.value)) < 1_000
    path.write_bytes(content.replace(b'\\"width\\": 8', b'\\"width\\":16'))
    with pytest.raises(InputError, match=r"; and [\d,]+ more$") as refused:
        read_model(path)
    assert len(str(refused.value)) < 1_000


def test_traced_blocks_are_as_few_as_there_are_stacks(monkeypatch):
    """Hundreds take half a minute, of a file that does not fit in the end."""
    traced = []
    original = layers.Block.__call__

    def counted(self, *arguments):
        traced.append(self.name)
        return original(self, *arguments)

    monkeypatch.setattr(layers.Block, "__call__", counted)
    depths = {"model.encoder_depth": 9, "model.set_depth": 8, "model.decoder_depth": 7}
    model_shapes(Config().with_fields({"model.width": 24} | depths))
    assert len(traced) <= 3
