"""A published folder that names the user's files, opened by each mode under a guard on `open`.

What the interpreter and the operating system need may be read, and the folder, the caches and what
the command names; nothing else.
"""

import dataclasses
import json
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pivq_jax import codec
from pivq_jax.common.hub import WEIGHTS
from pivq_jax.config import load_config
from pivq_jax.config.fields import all_fields
from pivq_jax.interop.safetensors_file import pack_model
from tests.conftest import ROOT, TINY
from tests.parameters import make_model

pytestmark = pytest.mark.slow

# Ends the process with status 99 where Python opens or lists what is elsewhere.
GUARD = """
import os, runpy, sys

def guard(event, arguments):
    if event in ("open", "os.listdir", "os.scandir"):
        place = arguments[0]
        if isinstance(place, (str, bytes, os.PathLike)):
            place = os.path.realpath(os.fsdecode(place))
            if not place.startswith({allowed!r}):
                print("opened", place, file=sys.stderr, flush=True)
                os._exit(99)

sys.addaudithook(guard)
sys.argv = {arguments!r}
runpy.run_module("pivq_jax.{module}", run_name="__main__", alter_sys=True)
"""
SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", sys.prefix, sys.base_prefix, str(ROOT))


@pytest.fixture(scope="module")
def private(tmp_path_factory) -> Path:
    """Files of the user."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "pictures").mkdir()
    for i in range(30):
        image = Image.new("RGB", (16, 16), (8 * i, 0, 0))
        image.save(folder / "pictures" / f"{'a' * 40}_{i}.png")  # the group's expression never ends
    (folder / "weights.safetensors").write_bytes(b"secret")
    return folder


@pytest.fixture(scope="module", params=[("published", "image_folder"), ("run", "tfds")], ids=str)
def folder(request, private, tmp_path_factory) -> Path:
    """A published model whose two descriptions name the user's files wherever they have a text.

    Texts that are one of a few, and numbers, are those of fuzz_test.py.
    """
    place = tmp_path_factory.mktemp("hub") / "model"
    form, data = request.param
    texts = {
        field.name: str(private / "weights.safetensors")
        for field in all_fields()
        if field.type is str and (field.limit is None or field.limit.holds("/"))
    }
    assert texts.keys() >= {"name", "data.path", "loss.perceptual_weights"}
    hostile = texts | {
        "name": "../../mine",  # which is said, as a name
        "data.name": data,
        "data.image_size": 32,  # the smallest that the losses allow
        "model.patch_size": 8,
        "data.path": str(private / "pictures"),
        "data.group": "(([a-z_0-9]+)+)!",
        "loss.perceptual": 1.0,
        "evaluate.batch_size": 4,
        "sample.count": 4,
    }
    config = load_config("image_folder:smoke").with_fields(TINY | hostile)
    rng = np.random.default_rng(0)
    parents = np.stack([rng.permutation(32)[:8] for _ in range(30)]).astype(np.int32)
    model = dataclasses.replace(make_model(config, scale=0.1), parents=parents)
    model.save_pretrained(place)
    description = {"config": config.to_dict(), "step": 100}
    (place / WEIGHTS).write_bytes(pack_model(model.params, description))
    held = {"format_version": 1, **description} if form == "published" else config.to_dict()
    (place / "config.json").write_text(json.dumps(held))
    codec.write(place / "codes.pivq", model, parents[:3], ["a.png", "b.png", "c.png"])
    return place


def guarded(commands: Any, folder: Path, tmp_path: Path, module: str, *arguments: str) -> str:
    allowed = (*SYSTEM, *map(str, (folder, tmp_path, commands.directory)))
    return GUARD.format(allowed=allowed, arguments=["", *arguments], module=module)


OPENED = "--pretrained={folder}"
FIELD = [OPENED, "--config.seed=3"]  # starts from the folder's config
WRITES = ["--input={own}", "--output={new}"]
# What opens a published model: whether it is refused, a program, and its arguments.
COMMANDS: dict[str, tuple[bool, str, list[str]]] = {
    "evaluate": (True, "main", [*FIELD, "--mode=evaluate"]),
    "sample": (False, "main", [*FIELD, "--mode=sample"]),
    "reconstruct": (False, "main", [*FIELD, "--mode=reconstruct", *WRITES]),
    "train": (True, "main", ["--config={folder}", "--init_from={folder}", "--workdir={new}"]),
    "edit": (True, "edits", ["edit", *FIELD, "--set=hair=bun", *WRITES]),
    "complete": (False, "edits", ["complete", OPENED]),
    "train a prior": (True, "prior", ["train", "--config={folder}", "--workdir={new}"]),
    "compress": (False, "codec", ["compress", *FIELD, "--input={own}", "--output={new}.pivq"]),
    "decompress": (
        False,
        "codec",
        ["decompress", *FIELD, "--input={folder}/codes.pivq", "--output={new}"],
    ),
    "convert": (False, "convert", ["--from={folder}", "--to={new}/model.safetensors"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_of_the_user_is_opened(commands, folder, small_folder, tmp_path, name):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(3):
        (own / f"{i}.png").write_bytes((small_folder / f"{i}.png").read_bytes())
    places = {"folder": folder, "own": own, "new": tmp_path / "new"}
    refused, module, given = COMMANDS[name]
    arguments = [argument.format(**places) for argument in given]
    code = guarded(commands, folder, tmp_path, module, *arguments)
    done = commands.run(code=code, directory=tmp_path)
    assert done.code == (2 if refused else 0), done
    assert "private" not in done.stdout + done.stderr, done


def test_nothing_of_the_user_is_served(commands, folder, tmp_path):
    arguments = [argument.format(folder=folder) for argument in [*FIELD, "--port=0"]]
    code = guarded(commands, folder, tmp_path, "explore", *arguments)
    command = commands.start(code=code, directory=tmp_path)
    output = commands.directory / f"{commands._count}.stdout"

    def asked() -> bool:
        text = output.read_text() if output.exists() else ""
        address = text.partition(" at ")[2].partition(" ")[0]
        if not address.endswith("/"):
            return False
        for index in range(5):
            body = json.dumps({"index": index}).encode()
            with urllib.request.urlopen(f"{address}api/example", body) as answer:
                assert json.load(answer)["name"].startswith("decoded training image")
        return True

    command.kill_when(asked, signal.SIGINT)
    done = command.wait()
    assert done.code == 0 and "private" not in done.stdout + done.stderr, done


def test_the_guard_sees_what_the_user_names(commands, folder, private, tmp_path):
    """With its path typed, the same command opens the folder, and ends."""
    named = f"--config.data.path={private / 'pictures'}"
    given = ["complete", f"--pretrained={folder}", named]
    code = guarded(commands, folder, tmp_path, "edits", *given)
    done = commands.run(code=code, directory=tmp_path)
    assert done.code == 99 and f"opened {private / 'pictures'}" in done.stderr
