"""The PyTorch model opens what this package publishes, and owes its networks nothing."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import pivq_jax
from pivq_jax.common.errors import InputError
from pivq_jax.common.hub import shipped_models
from pivq_jax.interop import torch_model


@pytest.mark.parametrize("kind", ["name", "directory", "file"])
def test_the_model_of_the_package_gives_the_same_codes_and_images(kind):
    directory = shipped_models()["toon_faces"]
    where = {"name": "toon_faces", "directory": directory, "file": directory / "model.safetensors"}
    theirs = torch_model.from_pretrained(where[kind])
    assert not theirs.training
    if kind != "name":  # which is compared as a whole
        expected = torch_model.from_pretrained("toon_faces").state_dict()
        found = theirs.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        return
    ours = pivq_jax.from_pretrained("toon_faces")
    codes = np.asarray(ours.sample(jax.random.key(0), 8))
    images = np.asarray(ours.decode(codes))
    with torch.inference_mode():
        decoded = theirs.decode(torch.from_numpy(codes.astype(np.int64)))
        encoded = theirs.encode(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(decoded.permute(0, 2, 3, 1), images, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(encoded, ours.encode(images))


def test_what_is_no_model_is_refused(tmp_path):
    for where, message in (
        ("no such", "no model of the package"),
        (tmp_path, "holds no model.safetensors"),
        (tmp_path / "x.safetensors", "is not a file"),
    ):
        with pytest.raises(InputError, match=message):
            torch_model.from_pretrained(where)


def test_its_networks_use_nothing_of_this_package():
    body = ast.parse(Path(torch_model.__file__).read_text()).body
    of_package = {
        node.name if isinstance(node, ast.FunctionDef) else ""
        for node in body
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom) and "pivq_jax" in ast.unparse(inner)
    }
    assert of_package == {"from_pretrained"}
