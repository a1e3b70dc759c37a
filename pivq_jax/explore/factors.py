"""Labelled factors: what entries tell of them, read from decoded images, edited in codes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.cluster.vq import kmeans2

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.inference import TrainedModel

NOISE = 2.0  # standard deviation in grey levels of what is taken for noise in each pixel
# A value is sure if its lead over each other one is at least this share of the mean lead in images
# that have it, and this ratio of probabilities.
LEAST_LEAD, LEAST_RATIO = 0.3, 9.0
CLUSTERS = 8  # groups of entries where there are no labels; more colours are hard to tell apart


class Probe(NamedTuple):
    """Linear scores of all V values of all factors, one factor after another."""

    weights: np.ndarray  # f32 [V, F], of the grey levels of F pixels times channels
    bias: np.ndarray  # f32 [V], -inf for values that no image has
    # f32 [V, V], by which the score of a sure value exceeds those of the others of its factor.
    least: np.ndarray


def fit_probe(
    images: np.ndarray, labels: np.ndarray, factors: Mapping[str, Sequence[str]]
) -> Probe:
    """Fits a linear discriminant (Fisher 1936) of each factor to images, uint8 [M, ...], M >= 1,
    with a covariance of pixels that all values of the factor share. Labels are int [M, A].
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    mean = pixels.mean(0, dtype=np.float64)
    pixels -= mean.astype(np.float32)
    columns = zip(labels.T, factors.values(), strict=True)
    has = np.concatenate([np.eye(len(names), dtype=np.float32)[c] for c, names in columns], 1)
    counts = has.sum(0, dtype=np.float64)
    sums = [pixels[column > 0].sum(0, dtype=np.float64) for column in has.T]
    means = np.stack(sums) / np.maximum(counts, 1.0)[:, None]
    covariance = (pixels.T @ pixels).astype(np.float64) / len(pixels)
    covariance[np.diag_indices_from(covariance)] += NOISE**2
    directions = np.linalg.solve(covariance, means.T)
    weights, bias = np.zeros(means.shape), np.zeros(len(means))
    least = np.zeros((len(means), len(means)))
    for span in slices_of(factors):
        # Along the directions of its C means, a factor has C coordinates.
        between = means[span] @ directions[:, span]
        within = between - between * (counts[span] / len(pixels)) @ between
        inverse = np.linalg.pinv(within, rcond=1e-6, hermitian=True)
        weights[span] = (directions[:, span] @ inverse @ between).T
        scores = between @ inverse @ between  # of each mean, in rows
        squares = scores.diagonal()
        bias[span] = -squares / 2
        lead = (squares[:, None] + squares) / 2 - scores
        least[span, span] = np.maximum(LEAST_LEAD * lead, np.log(LEAST_RATIO))
    np.fill_diagonal(least, 0.0)
    bias = np.where(counts > 0, bias - weights @ mean, -np.inf)
    return Probe(*(part.astype(np.float32) for part in (weights, bias, least)))


def read_values(
    image: np.ndarray, probe: Probe, factors: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Returns the value of each factor in an image, uint8: int [A], -1 where none is sure."""
    scores = probe.weights @ image.ravel().astype(np.float64) + probe.bias
    values = []
    for span in slices_of(factors):
        best = int(scores[span].argmax())
        sure = scores[span][best] - scores[span] >= probe.least[span, span][best]
        values.append(best if sure.all() else -1)
    return np.array(values)


def slices_of(factors: Mapping[str, Sequence[str]]) -> list[slice]:
    """Returns where the values of each factor are among those of all."""
    ends = np.cumsum([len(names) for names in factors.values()]).tolist()
    return [slice(end - len(names), end) for end, names in zip(ends, factors.values(), strict=True)]


def edit_in_order(model: TrainedModel, codes: np.ndarray, factor: int, value: int) -> np.ndarray:
    """Gives a factor another value, both by index; see `TrainedModel.edit`.

    Entry n of the result, int32 [N], is that of `codes` or, paired with it, what replaces it.
    """
    assert model.labels
    factors = model.labels.factors
    if not 0 <= factor < len(factors):
        raise InputError(f"factor {factor}: factors are 0 to {len(factors) - 1}")
    name, values = list(factors.items())[factor]
    if not 0 <= value < len(values):
        raise InputError(f"value {value}: values of {name} are 0 to {len(values) - 1}")
    try:
        new = model.edit(codes[None], **{name: values[value]})[0]
    except ValueError as error:  # no training image shows it
        raise InputError(str(error)) from error
    _, partners, _ = sampling.pair_codes(model.space, model.codebook, codes, new)
    replaced = np.empty(len(codes), np.int32)
    replaced[np.argsort(codes, kind="stable")] = partners  # those of the sorted codes
    return replaced


def find_meanings(
    space: sampling.CodeSpace,
    codebook: jax.Array,
    codes: np.ndarray,
    labels: np.ndarray,
    factors: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Returns what codebook entries tell: `grouping`, `groups` and `entries` in page/backend.js.

    Each entry is attributed to the factor that it tells most about, as the code atlas does. Without
    labels, entries are grouped by k-means on the codebook.
    """
    size = space.codebook_size
    share = np.bincount(space.occurrences(codes)[1], minlength=size) / len(codes)
    unknown = {"group": -1, "value": "", "right": 0.0, "usual": 0.0}
    entries = [{**unknown, "share": each} for each in share.tolist()]
    if not factors:
        count = min(CLUSTERS, size)
        _, clusters = kmeans2(np.asarray(codebook), count, minit="++", rng=0)
        for entry, cluster in zip(entries, clusters.tolist(), strict=True):
            entry["group"] = cluster
        groups = [f"cluster {i + 1}" for i in range(count)]
        return {"grouping": "cluster", "groups": groups, "entries": entries}
    names = list(factors)
    for found in sampling.informative_codes(space, codes, labels, factors, size):
        entries[found.code] |= {
            "group": names.index(found.factor),
            "value": found.value,
            "right": found.value_share,
            "usual": found.value_share_of_all,
        }
    return {"grouping": "factor", "groups": [words(name) for name in names], "entries": entries}


def words(name: str) -> str:
    """Returns the name of a factor as text."""
    return name.replace("_", " ")
