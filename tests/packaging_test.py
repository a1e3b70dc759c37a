"""What is installed: packages, dependencies, the command."""

import re
import tomllib

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def requirements(name: str) -> set[str]:
    """The lines of a file of requirements, without comments and other files."""
    lines = [re.sub(r"\s*#.*", "", line) for line in (ROOT / name).read_text().splitlines()]
    return {line for line in lines if line and not line.startswith("-r ")}


def test_the_one_line_set_up_installs_all_that_running_needs():
    dependencies = PROJECT["project"]["dependencies"]
    assert requirements("requirements.txt") == {*dependencies, *EXTRAS["train"], *EXTRAS["faces"]}
    assert requirements("requirements-test.txt") == {
        name for extra in ("test", "hub", "onnx", "explore", "align") for name in EXTRAS[extra]
    }


def test_every_package_is_listed():
    folders = {path.parent for path in (ROOT / "pivq_jax").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names | {"pivq_jax.configs"}


def test_the_command_is_a_function(commands):
    assert PROJECT["project"]["scripts"] == {"pivq_jax": "pivq_jax.main:run"}
    # In a process of its own: absl refuses the flags of a second command in one.
    assert commands.run(code="from pivq_jax.main import run; assert callable(run)").code == 0
