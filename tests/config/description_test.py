"""Published models are described once, and name nothing on the user's disk."""

import json

import jax
import numpy as np
import pytest

from pivq_jax.commands.task import make_task, open_model
from pivq_jax.common.errors import InputError
from pivq_jax.common.hub import WEIGHTS
from pivq_jax.config import load_config
from pivq_jax.config.description import NOT_PUBLISHED
from pivq_jax.config.fields import Config, all_fields
from pivq_jax.interop.safetensors_file import model_shapes, pack_model, read_model

SIZES = {"data.image_size": 8, "model.patch_size": 4, "model.width": 8, "model.heads": 1}
HOSTILE = dict.fromkeys(NOT_PUBLISHED, "/home/someone/(a+)+!")


def test_every_field_of_any_text_is_only_the_users():
    """But the name of the data set, which is one of a few where it is used."""
    free = {field.name for field in all_fields() if field.type is str and field.limit is None}
    assert free == {*NOT_PUBLISHED, "data.name"}


@pytest.fixture
def folder(tmp_path):
    config = Config().with_fields(SIZES | HOSTILE | {"train.steps": 900})
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), model_shapes(config))
    (tmp_path / WEIGHTS).write_bytes(pack_model(params, {"config": config.to_dict()}))
    return tmp_path


def test_its_config_is_that_of_the_weights_without_the_users_fields(folder):
    """Whatever `config.json` says."""
    config = Config().with_fields(SIZES | HOSTILE | {"train.steps": 7}).to_dict()
    expected = Config().with_fields(SIZES | {"train.steps": 900})
    assert read_model(folder / WEIGHTS)[1]["config"] == expected.to_dict()
    for text in (json.dumps({"format_version": 1, "config": config}), json.dumps(config), "{"):
        (folder / "config.json").write_text(text)
        assert load_config(str(folder)) == load_config(f"{folder}/") == expected
        assert make_task(None, "", str(folder), training=False).config == expected


def test_what_a_user_gives_is_taken(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = load_config(str(folder)).with_fields({"data.group": "(.*)_", "data.path": "mine"})
    task = make_task(given.to_dict(), "", str(folder), training=False)
    assert open_model(task).step == 900
    assert task.config.data.group == "(.*)_" and task.config.data.path == f"{tmp_path}/mine"


def test_a_config_of_a_published_model_without_its_weights_is_refused(tmp_path):
    text = json.dumps({"format_version": 1, "config": Config().to_dict()})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="is a published model, no run"):
        load_config(str(tmp_path))
