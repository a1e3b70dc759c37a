"""What is installed: packages, dependencies, the command."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

import pivq_jax
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]

SOLVER = ROOT / "pivq_jax" / "matching"


def requirements(name: str) -> set[str]:
    """The lines of a file of requirements, without comments and other files."""
    lines = [re.sub(r"\s*#.*", "", line) for line in (ROOT / name).read_text().splitlines()]
    return {line for line in lines if line and not line.startswith("-r ")}


def test_the_one_line_set_up_installs_all_that_running_needs():
    dependencies = PROJECT["project"]["dependencies"]
    assert requirements("requirements.txt") == {*dependencies, *EXTRAS["train"], *EXTRAS["faces"]}
    assert requirements("requirements-test.txt") == {
        name for extra in ("test", "hub", "explore", "align") for name in EXTRAS[extra]
    }


def test_models_are_used_without_what_training_alone_needs():
    """ott-jax, with five packages that it brings, is for one method of the solver."""
    names = {re.split("[><=]", line)[0] for line in PROJECT["project"]["dependencies"]}
    of_training = {re.split("[><=]", line)[0] for line in EXTRAS["train"]}
    assert "ott-jax" in of_training and not names & of_training


def test_every_package_is_listed():
    folders = {path.parent for path in (ROOT / "pivq_jax").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names | {"pivq_jax.configs"}


def test_the_command_is_a_function(commands):
    assert PROJECT["project"]["scripts"] == {"pivq_jax": "pivq_jax.main:run"}
    # In a process of its own: absl refuses the flags of a second command in one.
    assert commands.run(code="from pivq_jax.main import run; assert callable(run)").code == 0


def test_the_solver_alone_has_the_version_and_the_requirements_of_the_package():
    solver = tomllib.loads((SOLVER / "pyproject.toml").read_text())["project"]
    extra = solver["optional-dependencies"]["sinkhorn"]
    assert solver["version"] == pivq_jax.__version__
    assert set(solver["dependencies"]) <= set(PROJECT["project"]["dependencies"])
    assert set(extra) <= set(EXTRAS["train"])


# What a user of SciPy would do, in an environment where only the solver was installed.
USE = """
import importlib.metadata, importlib.util, pathlib
import jax, numpy as np
from scipy.optimize import linear_sum_assignment
import pivq_jax.matching
from pivq_jax.matching import match

assert not any(map(importlib.util.find_spec, ("flax", "pivq_jax.model")))
required = importlib.metadata.requires("pivq_jax_matching")
assert {line.split(">")[0] for line in required if "extra" not in line} == {"jax", "numpy"}
folder = pathlib.Path(pivq_jax.matching.__file__).parent
assert "site-packages" in str(folder)
assert {"LICENSE", "py.typed"} <= {file.name for file in folder.iterdir()}

cost = 1e8 + np.random.default_rng(0).random((4, 20, 30))
best = [linear_sum_assignment(problem)[1] for problem in cost]
for method in ("auto", "shortest_path", "auction"):
    np.testing.assert_array_equal(jax.jit(lambda: match(cost, method).columns)(), best)
assert match(cost, "greedy").converged.all()
try:
    match(cost, "sinkhorn")
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_solver_alone_is_installed_and_used(tmp_path):
    def run(*command: object) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    before = {path.name for path in SOLVER.iterdir()}
    run(sys.executable, "-m", "venv", tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", SOLVER)
    run(python, "-m", "pip", "check")
    assert run(python, "-c", USE) == "method 'sinkhorn' needs ott-jax: pip install ott-jax\n"
    assert {path.name for path in SOLVER.iterdir()} == before  # nothing was left in the package
