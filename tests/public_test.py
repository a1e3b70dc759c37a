"""What the repository shows to the world: its README on a package index, its versions."""

import importlib.util
import re
from pathlib import Path

import yaml

import pivq_jax

ROOT = Path(__file__).parent.parent


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
