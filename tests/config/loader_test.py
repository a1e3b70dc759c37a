"""Configs are found by name, by file, from anywhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.config.fields import Config
from pivq_jax.config.loader import load_config, load_config_dict

ROOT = Path(__file__).parents[2]
MINE = """
from pivq_jax.config import base_config, with_variants

def get_config(variants=""):
    config = base_config()
    config.name = "mine"
    return with_variants(config, variants)
"""


def test_a_name_and_a_file_give_the_same_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    for variants in ("", ":smoke,nearest"):
        config = load_config(f"toon_faces{variants}")
        assert config == load_config(f"configs/toon_faces.py{variants}")
        assert config.to_dict() == load_config_dict(f"toon_faces{variants}").to_dict()


def test_a_workdir_gives_the_config_of_its_run(tmp_path):
    config = load_config("faces:smoke").with_fields({"train.steps": 77, "quantizer.noise": 0})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert load_config(str(tmp_path)) == config
    changed = load_config_dict(str(tmp_path))
    changed.quantizer.noise = 0.5  # a JSON file need not say that it is a float
    assert Config.from_dict(changed.to_dict()).quantizer.noise == 0.5


def test_a_file_anywhere_needs_the_package_alone(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    assert load_config(f"{file}:smoke").name == "mine_smoke"
    file.write_text(MINE.replace('variants=""', "").replace("variants)", '"")'))
    assert load_config(str(file)).name == "mine"


def test_a_package_alone_keeps_its_experiments_in_itself(tmp_path):
    """As a wheel installs them, wherever it is started, whatever is called `configs` there."""
    shutil.copytree(ROOT / "pivq_jax", tmp_path / "site" / "pivq_jax")
    shutil.copytree(ROOT / "configs", tmp_path / "site" / "pivq_jax" / "configs")
    (tmp_path / "here" / "configs").mkdir(parents=True)
    (tmp_path / "here" / "configs" / "__init__.py").write_text("raise ImportError")
    code = (
        "import sys; sys.path.insert(0, '../site')\n"
        "from pivq_jax.config import load_config\n"
        "print(load_config('ffhq:smoke').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "here", capture_output=True, text=True
    )
    assert done.stdout == "ffhq_smoke\n", done.stderr


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("toon_face", "", r"no config 'toon_face': did you mean toon_faces\? give one of celeba"),
        ("nowhere/mine.py", "", r"nowhere/mine\.py does not exist: .*toon_faces"),
        ("mine.py", "x = 1", "needs a function get_config"),
        ("mine.py", "get_config = lambda variants='': {}", "needs a function get_config"),
        ("mine.py", MINE.replace("config.name", "config.nmae"), "nmae is unknown"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(name)
