"""`python -m pivq_jax.edits`: its words, pictures of edits and completions, and mistakes."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

import pivq_jax
from pivq_jax.commands.task import Task
from pivq_jax.common.errors import InputError
from pivq_jax.edits.__main__ import COMMANDS, edit
from pivq_jax.sampling import Labels
from tests.main_test import assert_refused


def no_images(config):
    raise AssertionError("images were opened")


def test_a_model_with_labels_edits_images_without_its_data(
    with_parents, small_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("pivq_jax.commands.task.dataset_from_config", no_images)
    labels = Labels(np.arange(40)[:, None] % 2, {"shade": ("dark", "light")})
    model, out = dataclasses.replace(with_parents, labels=labels), tmp_path / "out"
    edit(Task(model.config, tmp_path, model), str(small_folder), str(out), ["shade=dark"])
    assert (out / "codes.json").exists()


@pytest.mark.slow
def test_faces_are_edited(commands, tmp_path):
    model = ["edit", "--pretrained=toon_faces"]
    done = commands.run(*model, module="edits", directory=tmp_path)
    assert done.code == 0 and done.stdout.endswith(f"wrote {tmp_path}/edits.png\n"), done.stderr
    assert Image.open(tmp_path / "edits.png").size == (1_450, 1_500)
    done = commands.run(
        *model, "--set=hair=bun", "--set=eyes=wide", module="edits", directory=tmp_path
    )
    edited = tmp_path / "edits_hair_bun_eyes_wide.png"
    assert done.code == 0 and Image.open(edited).size[0] == 1_042, done.stderr
    (run := tmp_path / "run").mkdir()
    done = commands.run(
        *model, "--set=hair=bun", f"--input={tmp_path}", module="edits", directory=run
    )
    assert done.code == 2 and f"{run}/edited_hair_bun must be neither --input" in done.stderr
    elsewhere = tmp_path.with_name(f"{tmp_path.name}_edited")
    done = commands.run(
        *(*model, "--set=hair=bun", f"--input={tmp_path}", f"--output={elsewhere}"),
        module="edits",
        directory=run,
    )
    assert done.code == 0, done.stderr
    codes = json.loads((elsewhere / "codes.json").read_text())
    assert codes.keys() == {"edits.png", edited.name}
    found = pivq_jax.from_pretrained("toon_faces").read_factors(np.array([*codes.values()]))
    assert (found[:, 4] == 0).all()  # hair: bun
    done = commands.run(*model, "--set=hair=red", module="edits", directory=tmp_path)
    assert done.code == 2 and "hair = 'red' is unknown: use one of bun" in done.stderr


@pytest.mark.slow
def test_faces_are_completed(commands, tmp_path):
    done = commands.run(
        *("complete", "--pretrained=toon_faces", "--hide=centre"),
        module="edits",
        directory=tmp_path,
    )
    picture = tmp_path / "completions_centre.png"
    assert done.code == 0 and done.stdout.endswith(f"wrote {picture}\n"), done.stderr
    assert Image.open(picture).size[0] > 1_000 and "24/24" in done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["edit", "--set=hair"], ["--set=hair", "as in --set=hair=bun"]),
        (["edit", "--set=a=b", "--set=a=c"], ["--set=a=c", "once"]),
        (["edit", "--hide=left"], ["--hide is for complete, not edit"]),
        (["complete", "--input=."], ["--input is for edit, not complete"]),
        (["complete", "--hide=top"], ["hide", "top", "upper"]),
        (["change"], ["give what to do, edit or complete"]),
    ],
)
def test_mistakes_get_one_line(commands, published, tmp_path, arguments, words):
    done = commands.run(*arguments, f"--pretrained={published}", module="edits", directory=tmp_path)
    assert_refused(done, *words)
    assert not list(tmp_path.iterdir())


def test_help_says_what_the_words_do(commands):
    done = commands.run("--help", module="edits")
    assert done.code == 0 and not done.stderr
    assert re.findall(r"^  (\w+) {2,}\w", done.stdout, re.MULTILINE) == [*COMMANDS]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"set": ["hair=bun"]}, "labelled images.* have none"),
        ({"set": ["hair=bun"], "input": "{folder}"}, "labelled images.* have none"),
        ({"input": "."}, "give --set"),
        ({"set": ["hair=bun"], "output": "out"}, "--output is for .*--input"),
    ],
)
def test_what_cannot_be_edited_is_refused(published, small_folder, tmp_path, options, words):
    model = pivq_jax.from_pretrained(published)
    given = {k: v.format(folder=small_folder) if k == "input" else v for k, v in options.items()}
    with pytest.raises(InputError, match=words):
        edit(Task(model.config, tmp_path, model), **given)
    assert not list(tmp_path.iterdir())
