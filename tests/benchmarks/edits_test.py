"""What images are asked for, and the table of what became of it."""

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks import edits
from benchmarks.common import output_of
from benchmarks.edits import ask, rows_of


def test_each_published_model_has_a_folder_of_its_own():
    options = Namespace(output=None, workdir=None, pretrained="someone/faces")
    assert output_of(options, "edits") == Path("runs/edits/someone_faces")


def test_values_asked_for_are_not_yet_seen():
    before = np.random.default_rng(0).integers(0, 2, (200, 2))
    chosen, asked = ask(np.pad(before, ((0, 0), (0, 1))), [2, 3, 1], np.random.default_rng(1))
    assert (asked != before[np.arange(200), chosen]).all() and {*chosen} == {0, 1}
    assert {*asked[chosen == 0]} == {0, 1} and {*asked[chosen == 1]} == {0, 1, 2}


def test_rows_are_means_over_what_was_asked_of_each_factor():
    before, after = np.array([[0, 1], [1, 0]]), np.array([[0, 0], [1, 0]])
    chosen, asked, changed = np.array([0, 0]), np.array([1, 1]), np.array([4, 2])
    rows = rows_of(["mood", "hat"], chosen, asked, before, after, changed, {})
    assert rows["all factors"] == {"edits": 2, "asked": 0.5, "kept": 0.5, "lost": 1, "changed": 3.0}
    assert rows["hat"] == {"edits": 0, "asked": None, "kept": None, "lost": 0, "changed": None}


def test_edits_of_the_picture_that_lose_another_factor_are_named(monkeypatch):
    """Of a model whose codes are the values of factors, and a judge that reads them."""
    factors = {"hair": ["bun", "curly"], "beard": ["none", "full"]}

    def edit(codes: np.ndarray, **wanted: str) -> np.ndarray:
        ((name, value),) = wanted.items()
        edited = codes.copy()
        edited[:, [*factors].index(name)] = factors[name].index(value)
        if value == "bun":  # takes the beard
            edited[:, 1] = 0
        return edited

    monkeypatch.setattr(edits, "decode_batched", lambda model, codes, size: codes)
    lines = edits.lost_in_picture(
        SimpleNamespace(edit=edit), np.array([1, 1]), factors, lambda images, size: images
    )
    assert lines == [
        "edits.png: 1 of 4 edits lose another factor",
        "  hair = bun loses beard",
    ]


def test_with_one_factor_no_other_can_be_kept():
    before, right = np.zeros((3, 1), int), {"images": np.ones((3, 1), bool)}
    asked = np.ones(3, int)
    rows = rows_of(["mood"], asked * 0, asked, before, before + 1, asked * 2, right)
    row = {"edits": 3, "asked": 1.0, "kept": None, "lost": 0, "changed": 2.0, "images": 1.0}
    assert rows == {"all factors": row, "mood": row}
    assert "NaN" not in json.dumps(rows)
