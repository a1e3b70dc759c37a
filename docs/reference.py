"""Sphinx extension that writes the API reference, one page per package of `pivq_jax`.

A page has the docstring of the package and what its `__all__` names, in that order. If these are
modules, each is a section with what its own `__all__` names. Commands follow, with their help.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

import pivq_jax

ROOT = pivq_jax.__name__


def pages() -> dict[str, list[str]]:
    """Returns the modules on the page of each package: itself, its public ones, its commands."""
    packages = [m.name for m in pkgutil.walk_packages(pivq_jax.__path__, f"{ROOT}.") if m.ispkg]
    found = {}
    for package in map(importlib.import_module, [ROOT, *packages]):
        names = [f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
        modules = [importlib.import_module(name) for name in names]
        # A package may have a function of the name of a module.
        public = [m.__name__ for m in modules if any(m is value for value in _values(package))]
        commands = [m.__name__ for m in modules if _is_command(m)]
        found[package.__name__] = [package.__name__, *public, *commands]
    return found


def _values(module: ModuleType) -> list[object]:
    """What the `__all__` of a module names; its own modules must have been imported."""
    return [getattr(module, name) for name in getattr(module, "__all__", [])]


def public_names(module: ModuleType) -> list[str]:
    """Returns the names documented under `module`: those of its `__all__` that are no modules."""
    names = getattr(module, "__all__", [])
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def _source(module: ModuleType) -> str:
    return Path(module.__file__ or "").read_text(encoding="utf-8")


def _is_command(module: ModuleType) -> bool:
    return 'if __name__ == "__main__":' in _source(module)


def _definitions(module: ModuleType) -> dict[str, ast.stmt]:
    """The statements that define the functions, classes and constants of a module."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(_source(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
            found |= {name.id: node for name in names}
    return found


def _entry(module: ModuleType, name: str) -> str:
    home, value = _home(module, name), getattr(module, name)
    node = _definitions(home).get(name)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        text = ast.unparse(node.value) if node.value else ""
        option = f"   :value: {text}\n" if 0 < len(text) <= 100 else ""
        return f".. py:data:: {name}\n{option}\n   {_comment(node, home)}\n"
    if inspect.isclass(value):
        bases = "" if value.__bases__ in ((object,), (tuple,)) else "   :show-inheritance:\n"
        fields = _fields(node, home) if isinstance(node, ast.ClassDef) else ""
        return f".. autoclass:: {name}\n   :members:\n   :undoc-members:\n{bases}\n{fields}\n"
    return f".. autofunction:: {name}\n"


def _home(module: ModuleType, name: str) -> ModuleType:
    """The module that defines `name`: `module`, or the one at the end of a chain of imports."""
    for node in ast.parse(_source(module)).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return _home(importlib.import_module(node.module or module.__name__), name)
    return module


def _fields(node: ast.ClassDef, home: ModuleType) -> str:
    """The comments on the fields of a class, unless its docstring describes them."""
    if "Attributes:" in (ast.get_docstring(node) or ""):
        return ""
    fields = [(f.target.id, _comment(f, home)) for f in node.body if _is_field(f)]
    return "\n".join(f"   :ivar {name}: {comment}" for name, comment in fields if comment)


def _is_field(node: ast.stmt) -> TypeGuard[ast.AnnAssign]:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def _comment(node: ast.stmt, module: ModuleType) -> str:
    """The comment on an assignment, in the lines above it or at the end of its last line."""
    lines = [line.strip() for line in _source(module).splitlines()]
    above = node.lineno - 1
    while lines[above - 1].startswith("# "):
        above -= 1
    if above < node.lineno - 1:
        return " ".join(line[2:] for line in lines[above : node.lineno - 1])
    return lines[(node.end_lineno or node.lineno) - 1].partition("  # ")[2]


def _section(name: str, underline: str) -> str:
    module = importlib.import_module(name)
    title = (
        name if not name.endswith(".__main__") else f"python -m {name.removesuffix('.__main__')}"
    )
    parts = [f"{title}\n{underline * len(title)}\n"]
    if _is_command(module):  # its docstring is its help text
        usage = textwrap.indent(inspect.getdoc(module) or "", "   ")
        parts += [f".. py:module:: {name}\n", f".. code-block:: none\n\n{usage}\n"]
    else:
        parts.append(f".. automodule:: {name}\n")
    parts.append(f".. py:currentmodule:: {name}\n")
    return "\n".join([*parts, *(_entry(module, public) for public in public_names(module))])


def write(folder: Path) -> None:
    """Writes pages that changed to `folder`, and deletes all other files in it."""
    folder.mkdir(exist_ok=True)
    texts = {
        folder / f"{package}.rst": "\n".join(
            _section(module, "-" if index else "=") for index, module in enumerate(modules)
        )
        for package, modules in pages().items()
    }
    for path in set(folder.iterdir()) - set(texts):
        path.unlink()
    for path, text in texts.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app) -> dict:
    """Registers the extension."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir, "reference")))
    return {"parallel_read_safe": True}
