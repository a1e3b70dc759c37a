"""The verdict on crafted metrics: what is good, what is bad, and what to do about it."""

import re
from typing import Any

import pytest

from pivq_jax.config.fields import all_fields
from pivq_jax.evaluation.verdict import BAD, FAIR, GOOD, MORE, REMEDIES, SILENT, verdict
from tests.conftest import ROOT

REAL = {"fid": 1.0, "precision": 0.9, "recall": 0.8, "density": 1.0, "coverage": 0.95}
AVERAGED = {"fid": 5.0, "precision": 0.5, "recall": 0.4, "density": 0.2, "coverage": 0.55}
GOOD_METRICS: dict[str, Any] = {
    "fid": 0.5,
    "precision": 0.7,
    "recall": 0.85,
    "density": 0.9,
    "coverage": 0.8,
    "rfid": 2.9,
    "baselines": {"training images": REAL, "averaged pairs": AVERAGED},
    "feature_network": "Inception-v3",
    "copied_share": 0.25,
    "copied_share_test": 0.25,
    "left_out": {},
}
RECONSTRUCT, TORN, ALIKE = REMEDIES


def judged(said: list[str]) -> dict[str, set[str]]:
    """The figures by what is said of them."""
    kinds = {kind: line for line in said for kind in (GOOD, FAIR, BAD, SILENT) if kind in line}
    return {kind: {*re.findall(r"(\w+) \S+ \(real", line)} for kind, line in kinds.items()}


def test_all_is_good_from_half_of_the_way_on_and_beyond_real_images():
    said = verdict(GOOD_METRICS)
    assert judged(said) == {GOOD: {*REAL} - {"fid"} | {"FID", "rFID"}}
    assert "FID 0.5 (real 1, averaged 5)" in said[0]
    assert "copied share of samples, 0.25, is not above" in said[1]
    assert len(said) == 3 and not {*said} & {*REMEDIES}
    said = verdict(GOOD_METRICS | {"copied_share": 0.5, "feature_network": "VGG16 (ImageNet)"})
    assert "VGG-FID 0.5 (" in said[0] and "rVGG-FID 2.9 (" in said[0]
    assert "copied share of samples, 0.5, is above that of test images, 0.25" in said[1]


@pytest.mark.parametrize(
    "changed, kind, named, remedy",
    [
        ({"rfid": 5.0}, BAD, "rFID", RECONSTRUCT),
        ({"rfid": 3.1, "fid": 6.0, "recall": 0.0}, FAIR, "rFID", RECONSTRUCT),
        ({"fid": 5.1}, BAD, "FID", TORN),
        ({"density": 0.2, "recall": 0.1}, BAD, "density", TORN),
        ({"recall": 0.59}, FAIR, "recall", ALIKE),
        ({"coverage": 0.5}, BAD, "coverage", ALIKE),
    ],
)
def test_a_figure_that_is_not_good_has_a_remedy_the_first_of_its_kind(changed, kind, named, remedy):
    said = verdict(GOOD_METRICS | changed)
    assert named in judged(said)[kind] and named not in judged(said)[GOOD]
    assert said[-2:] == [remedy, MORE] and len({*said} & {*REMEDIES}) == 1


def test_where_averages_are_as_good_as_real_images_only_a_low_figure_says_something():
    baselines = {"training images": REAL, "averaged pairs": AVERAGED | {"precision": 0.95}}
    for precision, kind in ((0.84, BAD), (0.86, SILENT), (1.0, SILENT)):
        said = verdict(GOOD_METRICS | {"baselines": baselines, "precision": precision})
        assert judged(said)[kind] == {"precision"}
        assert (TORN in said) == (kind == BAD)


def test_what_is_missing_is_not_judged():
    assert len(verdict({})) == 2
    reason = "3 images are too few for k = 5 neighbours"
    [said, _] = verdict({"psnr": 12.0, "left_out": {"distribution": reason}, "copied_share": None})
    assert said.endswith(f"not judged: {reason}.")
    some = {name: GOOD_METRICS[name] for name in ("fid", "recall")}
    only = {"training images": {"fid": 1.0}, "averaged pairs": {"fid": 5.0, "recall": 0.4}}
    assert judged(verdict(some | {"baselines": only})) == {GOOD: {"FID"}}


def test_remedies_name_fields_and_a_page_that_exist():
    names = {field.name for field in all_fields()}
    text = " ".join([*REMEDIES, MORE])
    found = set(re.findall(r"\b(?!docs)[a-z]+\.(?!md)[a-z_]+", text))
    assert len(found) == 5 and found <= names
    page, section = re.findall(r"(docs/\w+\.md), section (\d)", text)[0]
    lines = (ROOT / page).read_text().splitlines()
    assert any(line.startswith(f"## {section}. Read the result") for line in lines)
