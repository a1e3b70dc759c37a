"""Published models with each field at the worst values of its type: one clear error, or harmless.

Sizes of files are in tests/memory_test.py, paths in tests/modes_test.py.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from pivq_jax.common.errors import InputError
from pivq_jax.common.hub import WEIGHTS
from pivq_jax.config.description import FORMAT_VERSION, KEY
from pivq_jax.config.fields import Config, all_fields
from pivq_jax.inference.opening import from_pretrained
from pivq_jax.interop import safetensors_file
from tests.fuzz_test import tiny
from tests.memory import peak_memory

pytestmark = pytest.mark.slow

WORST: dict[type, list[Any]] = {
    int: [-(2**63), -1, 0, 2**31 - 1, 2**64, 10**400, 1.5, "1", None, True],
    float: [float("nan"), float("inf"), -float("inf"), -1e308, 1e308, 1e-320, "nan", None],
    bool: [0, 2, "false", None, []],
    str: [
        "",
        "a" * 10**6,
        "../../etc/passwd",
        "/",
        "\x1b[2J\n",
        "\0",
        "a,b",
        "\ud800",
        1,
        None,
        {},
    ],
}
METADATA = {
    "config": [None, [], {}, "a", {"model": None}, {"a" * 10**6: 1}],
    "step": [-1, 2**31, 1.5, "1", None, [[]] * 10**5],
    "progress": [None, [], "a", {"a" * 10**6: "b"}],
    "metrics": [None, [], 1, {"psnr": "a" * 10**6}],
    "format_version": [0, 2**64, "a" * 10**6, None, {}],
}


def published(folder: Path, changes: dict[str, Any]) -> None:
    """A tiny model whose description has some values replaced, by their path."""
    description = {"format_version": FORMAT_VERSION, "config": tiny(), "step": 900}
    description |= {"progress": {}, "metrics": {}}
    for name, value in changes.items():
        *sections, field = name.split(".")
        place: Any = description
        for section in sections:
            place[section] = dict(place[section])
            place = place[section]
        place[field] = value
    write(folder, json.dumps(description))


def write(folder: Path, text: str) -> None:
    shapes = safetensors_file.model_shapes(Config.from_dict(tiny()))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    arrays = safetensors_file.to_torch(params)
    metadata = {"format": "pt", KEY: text}
    safetensors.numpy.save_file(arrays, folder / WEIGHTS, metadata)


def outcome(folder: Path) -> str:
    """The error with which a model is refused; empty if it is opened."""
    try:
        from_pretrained(folder)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 2_000, str(error)[:300]
        return str(error)
    return ""


def opened_each(folder: Path, cases: list[tuple[str, Any]]) -> dict[str, int]:
    """Opens a model for each change; counts those that are refused, and opened."""
    counts = {"refused": 0, "opened": 0}
    published(folder, {})
    assert outcome(folder) == ""
    before = peak_memory(reset=True)
    for name, value in cases:
        published(folder, {name: value})
        counts["refused" if outcome(folder) else "opened"] += 1
        assert peak_memory() - before < 2**28, (name, repr(value)[:100])
    return counts


def test_fields_of_the_config(tmp_path, capfd):
    cases = [
        (f"config.{field.name}", value) for field in all_fields() for value in WORST[field.type]
    ]
    counts = opened_each(tmp_path, cases)
    print(counts)
    assert counts["refused"] > counts["opened"] > 0
    assert "Traceback" not in capfd.readouterr().err


def test_the_other_metadata(tmp_path, capfd):
    cases = [(name, value) for name, values in METADATA.items() for value in values]
    assert opened_each(tmp_path, cases)["refused"] > 0
    assert "Traceback" not in capfd.readouterr().err


def test_numbers_that_are_no_json_are_refused(tmp_path):
    published(tmp_path, {"metrics": {"psnr": float("nan")}})
    assert "does not say what model it is" in outcome(tmp_path)
    text = f'{{"config": {json.dumps(tiny())}, "metrics": {{"psnr": 1e999}}}}'  # read as infinity
    write(tmp_path, text)
    assert "does not say what model it is" in outcome(tmp_path)


def test_a_model_without_a_description(tmp_path):
    for text in ("", "[]", "null", "1", '"a"', "{}", '{"config": 1}', "[" * 10**5):
        write(tmp_path, text)
        assert "does not say what model it is" in outcome(tmp_path), text[:50]
