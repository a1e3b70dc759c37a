"""docs/build_explorer.py: the runtime, the files, and what docs/explorer/browser.js reads there."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from docs import build_explorer
from pivq_jax.explore.engine import Engine
from tests.explore.engines import untrained_engine
from tests.explore.node import run_js

NAME = "node_modules/onnxruntime-web"
# What the page needs of a browser to open a model and to recombine, without its networks.
STUB = """
export const env = { wasm: {} };
export const InferenceSession = { create: async () => ({}) };
export class Tensor {}
"""
OPEN = """
globalThis.fetch = async (name) => new Response(readFileSync(`${given.files}/${name}`));
globalThis.createImageBitmap = async () => ({ width: 128 });
const context = { drawImage() {}, getImageData() {} };
globalThis.OffscreenCanvas = class { getContext = () => context };
const backend = new BrowserBackend();
const { factors } = await backend.open(() => {});
const faces = [];
for (let i = 0; i < 30; i++) faces.push(await backend.recombine());
const index = ({ name }) => Number(name.replace("training image ", ""));
const parents = faces.map(({ a, b }) => [index(a), index(b)]);
const last = (await backend.examples(120, 48)).length;
const missing = await backend.example(128).catch((error) => error.message);
answer({ factors, parents, last, missing });
"""


def install(folder: Path, version: str) -> None:
    (folder / NAME / "dist").mkdir(parents=True, exist_ok=True)
    (folder / NAME / "package.json").write_text(json.dumps({"version": version}))


@pytest.fixture
def installed(monkeypatch, tmp_path) -> list[list[str]]:
    """A folder whose lock names 1.2.3, without a network; the commands that were run there."""
    lock = {"packages": {"": {}, NAME: {"version": "1.2.3"}}}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    commands = []

    def run(command, cwd, **options):
        commands.append(command[:2])
        install(cwd, "1.2.3")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(build_explorer, "EXPLORER", tmp_path)
    monkeypatch.setattr(build_explorer.shutil, "which", lambda name: name)
    monkeypatch.setattr(build_explorer.subprocess, "run", run)
    return commands


def test_the_runtime_of_the_lock_is_not_installed_again(installed, tmp_path):
    install(tmp_path, "1.2.3")
    assert build_explorer.find_runtime() == tmp_path / NAME / "dist" and installed == []


@pytest.mark.parametrize("before", [None, "1.2.2", "cut short"])
def test_a_runtime_that_is_missing_or_of_another_version_is_installed(installed, tmp_path, before):
    if before:
        install(tmp_path, before)
    if before == "cut short":
        (tmp_path / NAME / "package.json").write_text("{")
    assert build_explorer.find_runtime() == tmp_path / NAME / "dist"
    assert installed == [["npm", "ci"]]
    build_explorer.find_runtime()
    assert len(installed) == 1


@pytest.fixture(scope="module")
def opened(tiny_config, tmp_path_factory) -> tuple[Engine, Path, dict, dict]:
    """The explorer of an untrained model with parents that resemble each other.

    The engine, the folder, what explorer.json holds, and the factors and the parents of the page.
    """
    engine = untrained_engine(tiny_config.with_fields({"sample.nearest_of": 40}))
    folder = tmp_path_factory.mktemp("explorer")
    runtime, page = folder / "runtime", folder / "page"
    runtime.mkdir()
    for name in build_explorer.RUNTIME:
        (runtime / name).write_text(STUB)
    build_explorer.write_folder(page, engine, runtime)
    found = run_js("browser.js", "BrowserBackend", OPEN, folder, files=str(page))
    return engine, page, json.loads((page / "explorer.json").read_text()), found


@pytest.mark.slow
def test_without_a_server_codes_are_those_of_all_images_that_the_log_lift_counts(opened):
    engine, page, _, _ = opened
    held = safetensors.numpy.load_file(page / "model.codes.safetensors")["training_codes"]
    np.testing.assert_array_equal(held, engine.pool.codes)


@pytest.mark.slow
def test_without_a_server_parents_resemble_each_other_too(opened):
    engine, _, written, found = opened
    pairs = {tuple(pair) for pair in found["parents"]}
    assert pairs <= {tuple(pair) for pair in written["parents"]} and len(pairs) > 10
    entries = np.asarray(engine.model.codebook)
    apart = np.square(entries[:, None] - entries).sum(-1)
    nearest = [apart[row].min(0) for row in engine.pool.codes]  # [K] each, to the nearest of a set
    distance = np.array([[own[row].mean() for row in engine.pool.codes] for own in nearest])
    distance += distance.T
    a, b = np.array(written["parents"]).T
    assert (a != b).all() and distance[a, b].mean() < 0.8 * distance.mean()


@pytest.mark.slow
def test_without_a_server_there_are_as_many_test_images(opened):
    engine, _, _, found = opened
    assert engine.describe()["examples"] == 128 and found["last"] == 8
    assert "no test image 128" in found["missing"]


@pytest.mark.slow
def test_the_model_is_described_as_by_the_server(folder, engine):
    found = json.loads((folder / "explorer.json").read_text())["model"]
    assert found == engine.describe() and found["examples"] == 128


@pytest.mark.slow
def test_the_folder_names_no_path_of_this_machine(folder, engine):
    assert json.loads((folder / "explorer.json").read_text())["testCodes"]
    for file in folder.iterdir():
        assert str(folder.parent).encode() not in file.read_bytes()


@pytest.mark.slow
def test_images_lie_in_rows():
    images = [{"image": np.full((2, 2, 3), i, np.uint8)} for i in range(1, 6)]
    picture = build_explorer.album(images)[..., 0]
    assert picture.shape == (4, 6)
    np.testing.assert_array_equal(picture[::2, ::2], [[1, 2, 3], [4, 5, 0]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, output, message",
    [
        ("--workdir={}/none", "new", "holds no run"),
        ("--pretrained={}/none", "new", "none"),
        ("--pretrained=toon_faces", "full", "exists and is no explorer"),
    ],
)
def test_what_cannot_be_built_is_refused(capsys, tmp_path, model, output, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("precious")
    arguments = [model.format(tmp_path), f"--output={tmp_path / output}"]
    assert build_explorer.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
