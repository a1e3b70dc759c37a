"""What the repository shows to the world: names, the README on a package index, versions."""

import importlib.util
import pkgutil
import re
import types

import pytest
import yaml

import pivq_jax
from docs import check_reference as check
from tests.conftest import ROOT

PACKAGES = [m.name for m in pkgutil.iter_modules(pivq_jax.__path__, "pivq_jax.") if m.ispkg]


@pytest.mark.parametrize("package", ["pivq_jax", *PACKAGES])
def test_all_names_of_a_package_can_be_imported(package):
    names: dict[str, object] = {}
    exec(f"from {package} import *", names)
    public = importlib.import_module(package).__all__
    assert names.keys() - {"__builtins__"} == set(public)
    modules = {name for name in public if isinstance(names[name], types.ModuleType)}
    for name in modules:
        exec(f"from {package}.{name} import *", names)  # raises where a name is missing
        assert names[name] is not None and importlib.import_module(f"{package}.{name}").__all__


def test_the_check_of_the_reference_notices_public_names_without_documentation(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(check, "PACKAGE", tmp_path / "p")
    (check.PACKAGE / "room").mkdir(parents=True)
    (check.PACKAGE / "__init__.py").write_text('__all__ = ["f"]\ndef f():\n    """Text."""\n')
    (check.PACKAGE / "room" / "__init__.py").write_text('__all__ = ["tools", "unready"]\n')
    (check.PACKAGE / "room" / "tools.py").write_text('__all__ = ["g"]\ndef g(): ...\n')
    (check.PACKAGE / "room" / "unready.py").write_text("def h(): ...\n")

    faults: list[str] = []
    assert check.public_names(check.PACKAGE / "__init__.py", faults) == {"p.f"} and not faults
    room = check.PACKAGE / "room" / "__init__.py"
    assert check.public_names(room, faults) == {"p.room.tools.g"}
    assert faults == [
        "no docstring: p.room.tools.g",
        "p.room.unready is public, but has no __all__",
    ]


def setup_module_of_the_build():
    spec = importlib.util.spec_from_file_location("build_setup", ROOT / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_the_readme_are_absolute_on_a_package_index():
    readme = (ROOT / "README.md").read_text()
    relative = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", readme)
    assert "docs/pictures/samples.png" in relative
    assert not [target for target in relative if not (ROOT / target).exists()]

    shown = setup_module_of_the_build().absolute_links(readme, "https://host.example/o/r/", "v1")

    assert "](https://host.example/o/r/raw/v1/docs/pictures/samples.png)" in shown
    assert "](https://host.example/o/r/blob/v1/docs/training.md#the-optimizer)" in shown
    assert not re.findall(r"\]\((?!https?:|#)", shown)
    assert re.sub(r"https://host\.example/o/r/(raw|blob)/v1/", "", shown) == readme


def test_the_build_names_the_repository_only_where_it_is_known(tmp_path):
    build = setup_module_of_the_build()
    (tmp_path / "pivq_jax").mkdir()
    (tmp_path / "pivq_jax" / "__init__.py").write_text('"""Text."""\n\n__version__ = "1.2"\n')
    (tmp_path / "README.md").write_text("![Faces](a.png)")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "p"\n')
    assert build.long_description(tmp_path) == "![Faces](a.png)"

    urls = '[project.urls]\nRepository = "https://host.example/o/r"\n'
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "p"\n{urls}')
    assert build.long_description(tmp_path) == "![Faces](https://host.example/o/r/raw/v1.2/a.png)"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pivq_jax.__version__


def test_the_changelog_has_this_version():
    assert f"## [{pivq_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
