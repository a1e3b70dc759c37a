"""docs/explorer/probe.js beside pivq_jax/explore/factors.py."""

from pivq_jax.explore.factors import fit_probe, read_values
from tests.explore.factors_test import FACTORS, drawn
from tests.explore.node import run_js
from tests.explore.pixels_js_test import with_alpha

BODY = """
const { weights, bias, least, sizes, images } = given;
const bytes = images.length / given.count;
answer(Array.from({ length: given.count }, (_, i) =>
  readValues(images.subarray(i * bytes, (i + 1) * bytes), { weights, bias, least, sizes })));
"""


def test_it_reads_what_python_reads(tmp_path):
    probe, (images, _) = fit_probe(*drawn(2_000), FACTORS), drawn(200, seed=1)
    given = {"sizes": [len(names) for names in FACTORS.values()], "count": len(images)}
    arrays = {**probe._asdict(), "images": with_alpha(images)}
    found = run_js("probe.js", "readValues", BODY, tmp_path, **given, **arrays)
    expected = [read_values(image, probe, FACTORS).tolist() for image in images]
    assert found == expected and -1 in {value for values in found for value in values}
