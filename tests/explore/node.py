"""Runs modules of the page in Node, which knows the same JavaScript as a browser."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pivq_jax.explore.server import PAGE


def missing(reason: str) -> NoReturn:
    """Skips a test, or for .ci/run fails it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def run_js(module: str, names: str, body: str, folder: Path, **given: Any) -> Any:
    """Runs a script that imports `names` from a module and sees values as properties of `given`.

    Args:
        module: file in the page.
        names: comma-separated.
        body: the script, which calls `answer` with its result.
        folder: a temporary directory.
        **given: JSON values.

    Returns:
        the answer, a JSON value.
    """
    node = shutil.which("node")
    if node is None:
        missing("node is not installed: apt-get install nodejs")
    page = shutil.copytree(PAGE, folder / "page", dirs_exist_ok=True)
    (page / "package.json").write_text('{"type": "module"}')
    # Timers of a module do not keep Node waiting.
    script = f"""import {{ {names} }} from {json.dumps((page / module).as_uri())};
import {{ readFileSync }} from "node:fs";
const given = JSON.parse(readFileSync(0));
const answer = (value) => process.stdout.write(JSON.stringify(value), () => process.exit());
{body}"""
    done = subprocess.run(
        [node, "--input-type=module", "--eval", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
