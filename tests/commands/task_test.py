"""What a command is about: config, workdir and model, found out and checked."""

from pathlib import Path

import numpy as np
import pytest

import pivq_jax
from pivq_jax.commands.task import Task, make_task, open_model, open_with_images
from pivq_jax.common.errors import InputError
from pivq_jax.config.check import config_of_model, read_config
from pivq_jax.data.images import images_to_uint8


@pytest.mark.parametrize("name", ["", "..", "faces/../.."])
def test_a_name_that_is_none_of_a_folder_needs_a_workdir(tiny_config, name, tmp_path):
    values = tiny_config.with_fields({"name": name}).to_dict()
    with pytest.raises(InputError, match=r"cannot be a folder in runs/: give --workdir"):
        make_task(values, "", None, training=False)
    assert make_task(values, str(tmp_path), None, training=False).workdir == tmp_path


def test_places_are_those_of_the_folder_of_the_command(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config.with_fields({"loss.perceptual_weights": "w/alex.safetensors"})
    task = make_task(config.to_dict(), "", None, training=False)
    assert task.workdir == Path("runs") / config.name
    assert task.config.loss.perceptual_weights == str(tmp_path / "w" / "alex.safetensors")


def test_where_its_data_is_not_at_hand_parents_are_held_out_as_test_images(
    published, tmp_path, capsys
):
    model = pivq_jax.from_pretrained(published)
    before = model.parents
    model, dataset = open_with_images(Task(model.config, tmp_path, model), model)
    assert "training images, as they decode" in capsys.readouterr().out
    assert len(dataset.train) == len(model.parents) == 2  # of less than 200, two are left
    assert len(dataset.test) == len(before) - 2
    np.testing.assert_array_equal(model.parents, before[:2])
    first = np.asarray(images_to_uint8(model.decode(before[2:3])))[0]
    np.testing.assert_array_equal(dataset.test[0]["image"], first)


def test_a_model_is_opened_with_the_config_of_its_run_alone(tiny_run):
    workdir = tiny_run.workdir
    config = config_of_model(read_config(workdir), "here")
    for given in (True, False):  # as with fields beside --workdir, and without
        assert open_model(Task(config, workdir, config_given=given)).step > 0
    with pytest.raises(InputError, match=r"another config, with seed = 0:"):
        open_model(Task(config.with_fields({"seed": 5}), workdir))
