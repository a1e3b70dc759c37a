"""Fails and lists the names if public names of the package are missing from the built site.

python docs/check_reference.py docs/_build/objects.inv
"""

import ast
import sys
from pathlib import Path

from sphinx.util.inventory import InventoryFile

PACKAGE = Path(__file__).parent.parent / "pivq_jax"


def exported(tree: ast.Module) -> list[str] | None:
    """Returns the names in `__all__` of a module, or None if it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def defined(tree: ast.Module) -> list[str]:
    """Returns the functions, classes with their methods, and constants defined in a module."""
    names: list[str] = []
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name):
                names.append(name)
            case ast.ClassDef(name=name, body=body):
                methods = [m.name for m in body if isinstance(m, ast.FunctionDef)]
                names += [name, *(f"{name}.{m}" for m in methods if m != "setup")]
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case ast.Assign(targets=[ast.Tuple(elts=elements)]):
                names += [element.id for element in elements if isinstance(element, ast.Name)]
    return [name for name in names if "_" not in {part[0] for part in name.split(".")}]


def public_names() -> set[str]:
    """Returns the full names of all public objects, determined from the source only."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    names = set()
    for path, tree in trees.items():
        package = path.parent / "__init__.py"
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        if path == package or package.parent == PACKAGE or exported(trees[package]) is None:
            found = exported(tree)
            names |= {f"{module}.{name}" for name in (defined(tree) if found is None else found)}
    # `load` and `from_pretrained` are documented in `pivq_jax`, from where they are imported.
    top = exported(trees[PACKAGE / "__init__.py"]) or []
    return names - {f"{PACKAGE.name}.inference.{name}" for name in top}


def main(inventory: str) -> int:
    """Compares the public names with the inventory of the site; returns the exit code."""
    entries = InventoryFile.loads(Path(inventory).read_bytes(), uri="").data
    shown = {name for kind, names in entries.items() if kind.startswith("py:") for name in names}
    names = public_names()
    for name in sorted(names - shown):
        print(f"not in the API reference: {name}", file=sys.stderr)
    print(f"{len(names & shown)} of {len(names)} public names are in the API reference")
    return 1 if names - shown else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
