"""Sphinx configuration of the site: the pages of this folder and the API reference.

sphinx-build -W --keep-going -b html docs docs/_build
"""

import inspect
import os
import re
import sys
import tomllib
from pathlib import Path

import numpy.typing
from sphinx.domains.python import PyObject
from sphinx.util.typing import stringify_annotation

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

import reference  # noqa: E402

import pivq_jax  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT.get("urls", {}).get("Repository", "").rstrip("/")

project = "pivq_jax"
author = copyright = "pivq_jax contributors"
version = release = pivq_jax.__version__
exclude_patterns = ["_build", "jupyter_execute"]
extensions = [
    "myst_nb",
    "reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]

myst_heading_anchors = 3  # as on GitHub
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # `.ci/notebooks` runs them

default_role = "py:obj"  # `name` in a docstring is a link if such a name exists
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_default_options = {"special-members": "__call__"}
napoleon_use_ivar = True
napoleon_attr_annotations = False  # signatures show the types
next(f for f in PyObject.doc_field_types if f.name == "variable").label = "Attributes"
ARRAY_LIKE = stringify_annotation(numpy.typing.ArrayLike, "smart")  # a union, three lines long
python_maximum_signature_line_length = 88
highlight_language = "none"  # indented blocks are commands

html_theme = "furo"
html_title = f"pivq_jax {version}"
html_theme_options = (
    {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
    if REPOSITORY
    else {}
)

# Modules that have a section in the API reference.
MODULES = {module for modules in reference.pages().values() for module in modules}

# Files outside of docs/ that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "launch/README.md": "launch.md",
}


def site_links(text: str, folder: Path) -> str:
    """Converts links of a file in `folder` from those that work on GitHub to those of the site."""
    page = folder if folder.is_relative_to(DOCS) else DOCS  # other files are included in one there

    def replace(match: re.Match) -> str:
        label, target, anchor = match.groups(default="")
        if not (path := (folder / target).resolve()).exists():
            return match[0]  # a broken link, reported by the build
        name = path.relative_to(ROOT).as_posix()
        if name in PAGES or path.is_relative_to(DOCS):
            target = DOCS / PAGES[name] if name in PAGES else path
            return f"[{label}]({Path(os.path.relpath(target, page)).as_posix()}{anchor})"
        if name.startswith("pivq_jax/") and path.suffix != ".md":
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            return f"[{label}](#{module if module in MODULES else module.rpartition('.')[0]})"
        if REPOSITORY:
            return f"[{label}]({REPOSITORY}/blob/main/{name})"
        return label if path.is_dir() else f"[{label}](path:{os.path.relpath(path, page)})"

    return re.sub(r"\[([^][]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)", replace, text)


def setup(app) -> None:
    def skip(app, what: str, name: str, member: object, skipped: bool, options) -> bool | None:
        # Fields of a class are in its signature and under "Attributes" in its docstring.
        field = not (inspect.isroutine(member) or isinstance(member, property))
        return True if what == "class" and (field or name == "setup") else None

    def close_literals(app, what, name, obj, options, lines: list[str]) -> None:
        # In reStructuredText, the end of `name` must not be followed by a letter, as in `Array`s.
        def escape(match: re.Match) -> str:
            return match[0] + ("\\ " if match.string[match.end() :][:1].isalnum() else "")

        lines[:] = re.sub(r"(`+)[^`]+\1", escape, "\n".join(lines)).split("\n")

    def shorten(app, what, name, obj, options, signature: str | None, returned: str | None):
        def short(text: str) -> str:
            # Fields that Flax adds to each module.
            text = re.sub(r"(, )?parent: [^=]*= <[^>]*>, name: str \| None = None", "", text)
            text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
            return text.replace(ARRAY_LIKE, "ArrayLike")

        return signature and short(signature), returned and short(returned)

    def source_read(app, docname: str, content: list[str]) -> None:
        if (path := app.env.doc2path(docname)).suffix == ".md":
            content[0] = site_links(content[0], path.parent)

    def include_read(app, path: Path, docname: str, content: list[str]) -> None:
        content[0] = site_links(content[0], (DOCS / path).resolve().parent)

    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", close_literals)
    app.connect("autodoc-process-signature", shorten)
    app.connect("source-read", source_read)
    app.connect("include-read", include_read)
