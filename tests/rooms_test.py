"""Imports between the parts of the package point down: no part needs one that is built on it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "pivq_jax"
LEVELS = (
    {"common", "matching"},
    {"config"},
    {"model", "losses", "data", "sampling"},
    {"training", "interop"},
    {"inference"},
    {"evaluation", "codec"},
    {"explore"},
    {"modes", "convert"},
    {"main", "__init__"},
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}


def imports() -> set[tuple[str, str]]:
    """(part, another part that it imports), wherever in a file the import stands."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} has a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = [name.split(".")[1] for name in names if name.startswith("pivq_jax.")]
            found |= {(part, other) for other in ours if other in LEVEL and other != part}
    return found


def test_every_part_has_its_level():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__pycache__"} == LEVEL.keys()


def test_imports_point_down():
    upwards = {(part, other) for part, other in imports() if LEVEL[part] < LEVEL[other]}
    assert not upwards, sorted(upwards)


def test_no_two_parts_import_each_other():
    found = imports()
    assert not {pair for pair in found if pair[::-1] in found}
