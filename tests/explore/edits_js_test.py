"""docs/explorer/edits.js beside `pivq_jax.sampling`."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pivq_jax
from pivq_jax.explore.factors import edit_in_order
from pivq_jax.inference import TrainedModel
from pivq_jax.sampling import Labels
from pivq_jax.sampling.edit import factor_table, read_factors
from tests.explore.node import run_js
from tests.parameters import make_model

BODY = """
const { size, factors, kind } = given;
const codebook = { values: given.entries, size, dim: given.entries.length / size };
const table = { given: given.given_code, overall: given.overall, factors };
table.values = given.overall.length / factors;
answer(given.cases.map(([codes, factor, value]) => ({
  read: readFactors(codes, table),
  edited: edit(codes, factor, value, table, codebook, given.lift, kind),
})));
"""


def compare(known: TrainedModel, sets: np.ndarray, rng: np.random.Generator, folder: Path) -> float:
    """Edits each set by both; the mean number of codes replaced."""
    counts = [len(values) for values in known.labels.factors.values()]
    factors = rng.integers(0, len(counts), len(sets))
    values = [int(rng.integers(counts[factor])) for factor in factors]
    cases = list(zip(sets.tolist(), factors.tolist(), values, strict=True))
    table = factor_table(known.space, known.parents, known.labels)
    parts = {name: np.asarray(part) for name, part in table._asdict().items()}
    arrays = parts | {"entries": np.asarray(known.codebook), "lift": np.asarray(known.lift)}
    sizes = {"size": len(known.codebook), "factors": len(counts), "kind": known.space.kind}
    names = "edit, readFactors"
    found = run_js("edits.js", names, BODY, folder, cases=cases, **sizes, **arrays)
    read = np.array([one["read"] for one in found])
    np.testing.assert_allclose(read, read_factors(sets, table), atol=1e-4)
    wanted = zip(sets, factors, values, strict=True)
    edited = [edit_in_order(known, *case).tolist() for case in wanted]
    assert [one["edited"] for one in found] == edited
    return float((sets != edited).sum(1).mean())


@pytest.mark.parametrize("kind", ["matching", "nearest"])
def test_it_edits_what_python_edits(kind, tiny_config, tmp_path):
    rng, n, k, count = np.random.default_rng(0), 8, 48, 400
    factors = {"mood": ("glad", "sad", "calm"), "shade": ("dark", "light"), "age": ("young",)}
    values = np.stack([rng.integers(0, len(names), count) for names in factors.values()], 1)
    # How much an entry is liked in images of each value: all entries tell a little of all factors.
    liked = rng.normal(size=(3, 2, 1, k))[tuple(values.T)]
    codes = np.argsort(liked + rng.gumbel(size=(count, k)))[:, -n:].astype(np.int32)
    fields = {"quantizer.codebook_size": k, "quantizer.kind": kind}
    model = make_model(tiny_config.with_fields(fields))
    params, labels = jax.tree.map(jnp.asarray, model.params), Labels(values, factors)
    known = dataclasses.replace(model, params=params, parents=codes, labels=labels)
    if kind == "nearest":
        sets = rng.integers(0, k, (100, n))  # with copies
    else:
        sets = np.stack([rng.permutation(k)[:n] for _ in range(100)])
    assert compare(known, sets, rng, tmp_path) > 0.5


@pytest.mark.slow
def test_it_edits_faces_as_the_published_model_does(tmp_path):
    model = pivq_jax.from_pretrained("toon_faces")
    codes, rng = model.parents, np.random.default_rng(1)
    sets = rng.permuted(codes[rng.integers(0, len(codes), 300)], axis=1)
    assert compare(model, sets, rng, tmp_path) > 1
