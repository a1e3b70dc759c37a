"""Runs modules of the page in Node, which knows the same JavaScript as a browser."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from docs.build_explorer import constants
from tests.conftest import ROOT

SOURCES = (ROOT / "pivq_jax" / "explore" / "page", ROOT / "docs" / "explorer")
READ = """
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0));
for (const [name, { file, type }] of Object.entries(given.arrays)) {
  const bytes = Uint8Array.from(readFileSync(file)); // aligned
  given[name] = new globalThis[type](bytes.buffer);
}
"""
TYPES = {"float32": "Float32Array", "float64": "Float64Array", "int32": "Int32Array"}
TYPES |= {"uint8": "Uint8Array"}


def missing(reason: str) -> NoReturn:
    """Skips a test, or for .ci/run fails it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def run_js(module: str, names: str, body: str, folder: Path, **given: Any) -> Any:
    """Runs a script that imports `names` from a module and sees values as properties of `given`.

    Args:
        module: file in docs/explorer, or in the page.
        names: comma-separated.
        body: the script, which calls `answer` with its result.
        folder: a temporary directory, for arrays.
        **given: JSON values, and arrays, which become flat typed arrays.

    Returns:
        the answer, a JSON value.
    """
    node = shutil.which("node")
    if node is None:
        missing("node is not installed: apt-get install nodejs")
    arrays = {}
    for name, value in list(given.items()):
        if isinstance(value, np.ndarray):
            file = folder / f"{name}.bin"
            file.write_bytes(np.ascontiguousarray(value).tobytes())
            arrays[name] = {"file": str(file), "type": TYPES[value.dtype.name]}
            del given[name]
    page = folder / "page"  # as docs/build_explorer.py lays them out
    page.mkdir(exist_ok=True)
    for source in SOURCES:
        for file in (*source.glob("*.js"), *source.glob("package.json")):
            shutil.copy(file, page)
    (page / "constants.js").write_text(constants())
    url = (page / module).as_uri()
    script = f"import {{ {names} }} from {json.dumps(url)};\n{READ}"
    # Timers of a module do not keep Node waiting.
    script += (
        "const answer = (value) =>"
        f" process.stdout.write(JSON.stringify(value), () => process.exit());\n{body}"
    )
    done = subprocess.run(
        [node, "--input-type=module", "--eval", script],
        input=json.dumps({**given, "arrays": arrays}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
