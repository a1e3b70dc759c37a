"""What a file from elsewhere says of its model is checked as what a person writes is."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.config import Config
from pivq_jax.interop.safetensors_file import model_shapes, pack_model, read_model


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.safetensors"


def write(file: Path, section: str, without: str = "", **fields: Any) -> None:
    """Writes an untrained model whose config has other values of some fields."""
    sizes = {"data.image_size": 8, "model.patch_size": 4, "model.width": 8, "model.heads": 1}
    config = Config().with_fields(sizes)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), model_shapes(config))
    values = config.to_dict()
    if section:
        values[section] |= fields
    else:
        values |= fields
    if without:
        del values["prior"][without]
    file.write_bytes(pack_model(params, {"config": values}))


LARGE = {
    "images at a time": ("evaluate", {"batch_size": 2**31 - 1}, "at most 8,192"),
    "samples": ("sample", {"count": 2**31 - 1}, "at most 10,000,000"),
    "rows": ("sample", {"interpolations": 2**31 - 1}, "at most 1,024"),
    "name": ("", {"name": "\x1b[2J"}, r"name = '\\x1b"),
}


@pytest.mark.parametrize("without", ["", "steps"], ids=["whole", "of another version"])
@pytest.mark.parametrize("name", LARGE)
def test_its_config_has_the_limits_of_one_that_a_person_writes(path, name, without):
    section, fields, message = LARGE[name]
    write(path, section, without, **fields)
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
