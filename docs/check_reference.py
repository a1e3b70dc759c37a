"""Fails if a public name of the package is undocumented or missing from the built site.

python docs/check_reference.py docs/_build/objects.inv

Public is what the `__all__` of a package names and, if that is a module, what the `__all__` of the
module names. All of it is read from the source alone, so that a mistake of the site shows.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "pivq_jax"
Definition = ast.FunctionDef | ast.ClassDef


def exported(file: Path) -> list[str] | None:
    """Returns the names in `__all__` of a file, or None if it has none."""
    for node in ast.parse(file.read_text("utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                return ast.literal_eval(value)
    return None


def definition(file: Path, name: str) -> Definition | None:
    """Finds a function or a class in a file, or in what the file imports it from."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, Definition) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom):
            home = PACKAGE.parent.joinpath(*(node.module or "").split("."))
            for alias in node.names:  # an import of the name, or of a module that has it
                places = (home / f"{alias.name}.py", home.with_suffix(".py"), home / "__init__.py")
                for place in places if alias.name == name else places[:1]:
                    if place.exists() and place != file and (found := definition(place, name)):
                        return found
    return None


def members(node: Definition) -> Iterator[Definition]:
    """Yields a public function, or a public class with its public methods."""
    yield node
    for child in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            setter = any(ast.unparse(d).endswith(".setter") for d in child.decorator_list)
            if child.name != "setup" and not setter:  # `setup` is Flax's
                yield child


def public_names(file: Path, faults: list[str]) -> set[str]:
    """Returns the full names that the `__all__` of a file makes public, and adds what is wrong."""
    module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    module = module.removesuffix(".__init__")
    names: set[str] = set()
    for name in exported(file) or []:
        below = file.with_name(f"{name}.py")
        if file.name == "__init__.py" and below.exists() and definition(file, name) is None:
            if not exported(below):
                faults.append(f"{module}.{name} is public, but has no __all__")
            names |= public_names(below, faults)
            continue
        names.add(f"{module}.{name}")
        if (node := definition(file, name)) is None:
            continue  # a constant, for which the site shows its value or its comment
        for each in members(node):
            full = f"{module}.{name}" if each is node else f"{module}.{name}.{each.name}"
            names.add(full)
            if not ast.get_docstring(each):
                faults.append(f"no docstring: {full}")
    return names


def main(inventory: str) -> int:
    """Compares the public names with the inventory of the site; returns the exit code."""
    from sphinx.util.inventory import InventoryFile  # not where the tests run

    entries = InventoryFile.loads(Path(inventory).read_bytes(), uri="").data
    shown = {name for kind, names in entries.items() if kind.startswith("py:") for name in names}
    faults: list[str] = []
    names: set[str] = set()
    for package in sorted(PACKAGE.rglob("__init__.py")):
        if (public := exported(package)) is None:
            faults.append(f"{package} has no __all__")
            continue
        names |= public_names(package, faults)
        hidden = [
            module
            for module in package.parent.glob("*.py")
            if module != package and exported(module) and module.stem not in public
        ]
        faults += [f"{module} has an __all__, and {package} does not name it" for module in hidden]
    faults += [f"not in the API reference: {name}" for name in sorted(names - shown)]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(names & shown)} of {len(names)} public names are in the API reference")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
