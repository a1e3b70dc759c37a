"""What the figures of an evaluation amount to, in sentences: the beginning of its page."""

from typing import Any

from pivq_jax.common.output import as_text
from pivq_jax.evaluation.figures import SPREAD, fid_name

GOOD = "Good, nearer to real images than to averaged pixels"
FAIR = "Fair, better than averaged pixels but nearer to them than to real images"
BAD = "Bad, no better than averaged pixels"
SILENT = "Says little here, as averaged pixels do as well as real images"

MORE = "The table in docs/own_images.md, section 3, has more remedies; change one thing at a time."
# By what is to be done first, and the figures that ask for it.
REMEDIES = {
    "First improve reconstructions, as samples are of the same decoder: more steps (train.steps);"
    " if details are missing, more codes (model.num_codes) and entries"
    " (quantizer.codebook_size).": {"rfid"},
    "For samples more like real images, take parents that resemble each other"
    " (sample.nearest_of=10000), fewer codes (model.num_codes) or, for drawings, a larger"
    " loss.recombination.": {"fid", "precision", "density"},
    "For more kinds of samples, take any parents (sample.nearest_of=1), train with"
    " loss.recombination=0, or leave images of other kinds out.": {"recall", "coverage"},
}


def verdict(metrics: dict[str, Any]) -> list[str]:
    """Judges the figures of samples and reconstructions, and says what to change, in sentences.

    A figure means something only beside others of the same images and network, so there are no
    fixed limits. The references are the evaluation's own `baselines`: training images, which show
    what new real images reach, and averaged pixels of the samples' parents, which need no model.
    Half of the way between the two parts good from fair. Where averages do as well as real images,
    a figure is bad if it is worse than real images by more than averages are better, and says
    little otherwise. rFID is judged by the same FIDs, although they may be of fewer images and thus
    a little higher. The copied share has that of test images as its only reference. Chance is not
    allowed for: figures of few images may fall on either side.

    What is missing in `metrics`, the content of a `metrics.json`, is not judged.
    """
    baselines = metrics.get("baselines") or {}
    real, averaged = (baselines.get(name) or {} for name in ("training images", "averaged pairs"))
    fid = fid_name(metrics)
    names_by_kind: dict[str, list[str]] = {GOOD: [], FAIR: [], BAD: [], SILENT: []}
    weak = set()
    for name, title in {"fid": fid, **SPREAD, "rfid": f"r{fid}"}.items():
        reference = name.removeprefix("r") if name == "rfid" else name
        values: list[Any] = [metrics.get(name), real.get(reference), averaged.get(reference)]
        if None in values:
            continue
        kind = _judge(*values, rises=name in SPREAD)
        value, best, worst = map(as_text, values)
        names_by_kind[kind].append(f"{title} {value} (real {best}, averaged {worst})")
        if kind in (FAIR, BAD):
            weak.add(name)
    said = [f"{kind}: {', '.join(listed)}." for kind, listed in names_by_kind.items() if listed]
    if not said:
        reason = metrics.get("left_out", {}).get("distribution", "its references are missing")
        said = [f"Samples and reconstructions are not judged: {reason}."]
    copied, usual = (metrics.get(name) for name in ("copied_share", "copied_share_test"))
    if copied is not None and usual is not None:
        about = "above" if copied > usual else "not above"
        said.append(
            f"The copied share of samples, {as_text(copied)}, is {about} that of test images,"
            f" {as_text(usual)}: below, samples stand beside the nearest training images."
        )
    for remedy, figures in REMEDIES.items():
        if weak & figures:
            return [*said, remedy, MORE]
    return [*said, "Figures do not see everything: look at the images."]


def _judge(value: float, real: float, averaged: float, *, rises: bool) -> str:
    """Judges one figure by its references; `rises` if more is better."""
    if not rises:
        value, real, averaged = -value, -real, -averaged
    if averaged >= real:
        return SILENT if value >= real - (averaged - real) else BAD
    if value <= averaged:
        return BAD
    return GOOD if value >= (real + averaged) / 2 else FAIR
