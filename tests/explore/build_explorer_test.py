"""docs/build_explorer.py: which runtime the explorer without a server gets."""

import json
import subprocess
from pathlib import Path

import pytest

from docs import build_explorer

NAME = "node_modules/onnxruntime-web"


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
