"""Imports between the parts of the package point down: no part needs one that is built on it."""

import ast
import subprocess
import sys
from pathlib import Path

from docs.check_reference import exported

PACKAGE = Path(__file__).parent.parent / "pivq_jax"
LEVELS = (
    {"common", "matching"},
    {"config"},
    {"model", "losses", "data", "codes", "sampling"},
    {"training", "interop"},
    {"inference"},
    {"evaluation", "commands"},
    {"modes", "convert", "codec", "edits", "prior"},
    {"explore"},
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


# They import public names of the core, which is all that is not a tool, and never imports one.
TOOLS = {"codec", "edits", "explore", "prior"}


def test_every_part_has_its_level():
    parts = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    assert {part.removesuffix(".py") for part in parts} == LEVEL.keys()


def test_imports_point_down():
    upwards = {(part, other) for part, other in imports() if LEVEL[part] < LEVEL[other]}
    assert not upwards, sorted(upwards)


def test_the_core_imports_no_tool():
    found = {(part, other) for part, other in imports() if part not in TOOLS and other in TOOLS}
    assert not found, sorted(found)


def test_no_two_parts_import_each_other():
    found = imports()
    assert not {pair for pair in found if pair[::-1] in found}


def is_public(module: str, name: str) -> bool:
    """Whether the `__all__` of a package names it, or that of a module that a package names."""
    path = PACKAGE.parent / module.replace(".", "/")
    if path.is_dir():
        return name in (exported(path / "__init__.py") or ())
    file, package = path.with_suffix(".py"), path.parent / "__init__.py"
    return path.name in (exported(package) or ()) and name in (exported(file) or ())


def test_explorer_and_codec_use_only_what_is_public():
    """Either could be a package of its own, with `common`, which every part uses as it is."""
    hidden = [
        f"{path.relative_to(PACKAGE)}: {node.module}.{alias.name}"
        for part in ("explore", "codec")
        for path in (PACKAGE / part).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("pivq_jax.")
        and (node.module or "").split(".")[1] not in (part, "common")
        for alias in node.names
        if not is_public(node.module or "", alias.name)
    ]
    assert not hidden, "\n".join(hidden)


def test_what_is_not_public_is_seen():
    assert is_public("pivq_jax.data", "load_dataset")
    assert is_public("pivq_jax.evaluation.prdc", "prdc")
    assert not is_public("pivq_jax.data.images", "load_image")  # that of the package is
    assert not is_public("pivq_jax.evaluation.session", "Session")


def reached_by(module: str) -> set[str]:
    """The modules of the package that are loaded by an import of one of them."""
    code = f"import sys, {module}; print(*[name for name in sys.modules if 'pivq_jax' in name])"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return set(printed.stdout.split())


def test_the_loss_needs_no_data_files_or_tools():
    reached = reached_by("pivq_jax.training.objective")
    assert "pivq_jax.model.pivq" in reached
    assert len(reached) <= 44
    tools = {f"pivq_jax.{part}" for part in ("data", "sampling", "interop", "evaluation", "codec")}
    assert not reached & {*tools, "pivq_jax.common.files", "pivq_jax.training.build"}


def test_a_step_needs_no_evaluation_or_tools():
    reached = reached_by("pivq_jax.training.steps")
    assert "pivq_jax.training.objective" in reached
    assert not reached & {f"pivq_jax.{part}" for part in (*TOOLS, "evaluation", "commands")}
