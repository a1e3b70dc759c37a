"""What images are asked for, and the table of what became of it."""

import json

import numpy as np

from benchmarks.edits import ask, rows_of


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


def test_with_one_factor_no_other_can_be_kept():
    before, right = np.zeros((3, 1), int), {"images": np.ones((3, 1), bool)}
    asked = np.ones(3, int)
    rows = rows_of(["mood"], asked * 0, asked, before, before + 1, asked * 2, right)
    row = {"edits": 3, "asked": 1.0, "kept": None, "lost": 0, "changed": 2.0, "images": 1.0}
    assert rows == {"all factors": row, "mood": row}
    assert "NaN" not in json.dumps(rows)
