"""Linear probes: how well image attributes can be predicted from codes or latents.

A probe is a multinomial logistic regression with an L1 penalty (`evaluation.logistic`). It is
fitted on training images, its penalty is chosen on validation images, and its balanced accuracy is
measured on test images. The L1 penalty makes it the classification counterpart of the lasso, whose
weights DCI uses.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError
from pivq_jax.common.labels import is_known
from pivq_jax.evaluation import logistic
from pivq_jax.sampling import CodeSpace

# Penalties to try, strongest first, relative to the smallest one with which all weights are zero.
PENALTIES = (10**-0.5, 10**-1.0, 10**-1.5)
# Maximum number of code features. With all pairs of position and entry, 256 x 4,096, those of
# 10,000 images would take 39 GiB; with 32,000 entries probes take longer than a training.
MAX_CODE_FEATURES = 8_192
# Directions of a latent with less than this fraction of its largest variance are ignored.
LEAST_VARIANCE = 1e-6
_AT_ONCE = 2**27  # features converted to floats at once


class Labelled(NamedTuple):
    """Features [M, F] of a split, and labels int [M, A], the class of each attribute.

    A negative label is not known: of this attribute, the image is left out.
    """

    features: np.ndarray
    labels: np.ndarray


class Probes(NamedTuple):
    """Fitted probes: `features @ weights[:, a] + bias[a]` are the class scores of attribute a."""

    weights: np.ndarray  # f32 [F, A, C], 0 beyond the classes of an attribute
    bias: np.ndarray  # f32 [A, C], -inf for classes that do not occur in training
    converged: np.ndarray  # bool [A], whether within `logistic.TOLERANCE` of the optimum


class ProbeResult(NamedTuple):
    """Result of `probe_attributes`; arrays are ordered as `names`, the P attributes probed."""

    names: tuple[str, ...]
    left_out: dict[str, str]  # the reason for each attribute that could not be probed
    accuracy: np.ndarray  # f64 [P], balanced accuracy on the test images
    error: np.ndarray  # f64 [P], standard error of `accuracy`
    majority: np.ndarray  # f64 [P], that of always predicting the most frequent training class
    importance: np.ndarray  # f64 [F, P], sums over classes of absolute weights
    converged: np.ndarray  # bool [P], as in `Probes`


def code_features(space: CodeSpace, splits: Sequence[npt.ArrayLike]) -> list[np.ndarray]:
    """Converts codes of splits to features [M, F], what the decoder receives: the counts of
    each entry; for `positional`, one-hot entries at each place. Of more than `MAX_CODE_FEATURES`,
    those most frequent in the first split are kept.
    """
    checked = [space.check(codes, distinct=False) for codes in splits]
    total = space.codebook_size
    if space.ordered:  # each place has its own range of K numbers
        checked = [codes + total * np.arange(space.num_codes) for codes in checked]
        total *= space.num_codes
    elif total <= MAX_CODE_FEATURES:
        # As floats, those of 10,000 images and 131,072 entries would take 5 GB.
        dtype = np.min_scalar_type(1 if space.distinct else space.num_codes)
        return [space.multi_hot(codes, dtype) for codes in checked]
    frequent = np.argsort(-np.bincount(checked[0].ravel(), minlength=total), kind="stable")
    kept = np.sort(frequent[:MAX_CODE_FEATURES])
    columns = np.full(total, len(kept))  # omitted features share a last column, which is removed
    columns[kept] = np.arange(len(kept))

    def counts(codes: np.ndarray) -> np.ndarray:
        result = np.zeros((len(codes), len(kept) + 1), np.float32)
        np.add.at(result, (np.arange(len(codes))[:, None], columns[codes]), 1.0)
        return result[:, :-1]

    return [counts(codes) for codes in checked]


def latent_features(splits: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Converts latents f32 [M, N, D] to features [M, N * D]: each whitened, then concatenated.

    Much of the information in latents is in directions of small variance. Those that hardly vary in
    the first split, which defines the axes, are 0.
    """
    mean = splits[0].mean(0, dtype=np.float64)
    whitening = []
    for latent in (splits[0] - mean).swapaxes(0, 1):
        variances, axes = np.linalg.eigh(latent.T @ latent / len(latent))
        kept = variances > LEAST_VARIANCE * variances[-1]
        whitening.append(axes * (1 / np.sqrt(np.where(kept, variances, np.inf))))

    def white(latents: np.ndarray) -> np.ndarray:
        parts = zip((latents - mean).swapaxes(0, 1), whitening, strict=True)
        return np.concatenate([part @ matrix for part, matrix in parts], 1).astype(np.float32)

    return [white(latents) for latents in splits]


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean recall over the classes that occur in `labels`, and its standard error, f64 [A] each.

    Labels and predictions are int [M, A], those of A attributes; negative labels do not count.
    """
    accuracies = []
    for column, predicted in zip(labels.T, predictions.T, strict=True):
        known = column >= 0
        _, classes, sizes = np.unique(column[known], return_inverse=True, return_counts=True)
        recall = np.bincount(classes, column[known] == predicted[known]) / sizes
        error = np.sqrt(np.sum(recall * (1 - recall) / sizes)) / len(sizes)
        accuracies.append((np.mean(recall), error))
    accuracy, errors = np.array(accuracies).T
    return accuracy, errors


def probe_attributes(
    train: Labelled, validation: Labelled, test: Labelled, factors: Mapping[str, Sequence[str]]
) -> ProbeResult:
    """Fits probes on `train`, chooses penalties on `validation` and measures accuracy on `test`.

    A class that training lacks is never predicted; one that the test split lacks does not count.
    Images whose value is `UNKNOWN` are left out of the probe of that attribute.
    """
    splits = {
        "training": _without_unknown(train, factors),
        "validation": _without_unknown(validation, factors),
        "test": _without_unknown(test, factors),
    }
    left_out: dict[str, str] = {}
    for a, (name, values) in enumerate(factors.items()):
        for split, data in splits.items():
            shown = np.unique(data.labels[data.labels[:, a] >= 0, a])
            if not len(shown):
                left_out.setdefault(name, f"no {split} image has a known value of {name}")
            elif len(shown) == 1:
                left_out.setdefault(name, f"every {split} image has {name} = {values[shown[0]]}")
    names = tuple(name for name in factors if name not in left_out)
    if not names:
        raise InputError(f"no attribute to probe: {'; '.join(left_out.values()) or 'none given'}")

    columns = [a for a, name in enumerate(factors) if name in names]
    num_classes = [len(factors[name]) for name in names]
    varies = np.ptp(train.features, axis=0) > 0  # constant features carry no information
    if not varies.any():
        raise InputError("nothing to probe: all training images have the same features")
    train, validation, test = (
        Labelled(data.features[:, varies], data.labels[:, columns]) for data in splits.values()
    )
    fits: list[Probes] = []
    for penalty in PENALTIES:
        fits.append(fit_probes(train, num_classes, penalty, fits[-1] if fits else None))
    scores = [
        balanced_accuracy(validation.labels, predict(fit, validation.features))[0] for fit in fits
    ]
    chosen = np.argmax(scores, axis=0)  # the first maximum, i.e. the strongest penalty
    rows = np.arange(len(names))
    best = Probes(
        weights=np.stack([fit.weights for fit in fits])[chosen, :, rows].swapaxes(0, 1),
        bias=np.stack([fit.bias for fit in fits])[chosen, rows],
        converged=np.stack([fit.converged for fit in fits])[chosen, rows],
    )
    accuracy, error = balanced_accuracy(test.labels, predict(best, test.features))
    commonest = np.array([np.bincount(labels[labels >= 0]).argmax() for labels in train.labels.T])
    # Times its standard deviation, the importance does not depend on the scale of a feature.
    importance = np.zeros((len(varies), len(names)))
    parts = _parts(train.features, axis=1)
    deviation = np.concatenate([part.std(0, dtype=np.float64) for part in parts])
    importance[varies] = np.abs(best.weights).sum(-1, dtype=np.float64) * deviation[:, None]
    return ProbeResult(
        names=names,
        left_out=left_out,
        accuracy=accuracy,
        error=error,
        majority=balanced_accuracy(test.labels, np.broadcast_to(commonest, test.labels.shape))[0],
        importance=importance,
        converged=best.converged,
    )


def _without_unknown(data: Labelled, factors: Mapping[str, Sequence[str]]) -> Labelled:
    columns = zip(data.labels.T, factors.values(), strict=True)
    labels = [np.where(is_known(column, values), column, -1) for column, values in columns]
    return Labelled(data.features, np.stack(labels, axis=1))


def fit_probes(
    data: Labelled, num_classes: Sequence[int], penalty: float, start: Probes | None = None
) -> Probes:
    """Fits a probe for each attribute; to start from those of another penalty saves time.

    The loss is the mean over classes of the mean cross-entropy of their images, so that rare ones
    count as much, plus the penalty of the weights (`logistic.fit`), not of the bias.
    """
    classes, known = max(num_classes), data.labels >= 0
    labels = np.where(known, data.labels, 0)
    columns = zip(labels.T, known.T, strict=True)
    counts = np.stack([np.bincount(c, weights=k, minlength=classes) for c, k in columns])  # [A, C]
    seen = counts > 0
    shares = 1 / (np.maximum(counts, 1) * seen.sum(1, keepdims=True))
    shares = known * np.take_along_axis(shares.T, labels, axis=0)
    # Centred features make the problem far better conditioned; the bias is corrected at the end.
    mean = data.features.mean(0, dtype=np.float64).astype(np.float32)
    if start is None:
        weights = np.zeros((len(mean), len(num_classes), classes), np.float32)
        bias = np.zeros(weights.shape[1:], np.float32)
    else:
        weights = start.weights
        bias = np.where(seen, start.bias, 0.0) + np.tensordot(mean, weights, 1)
    params, converged = logistic.fit(
        _centred(data.features, mean),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(seen),
        jnp.asarray(shares, jnp.float32),
        logistic.Params(jnp.asarray(weights), jnp.asarray(bias)),
        penalty,
    )
    weights, bias = np.asarray(params.weights), np.asarray(params.bias)
    bias = np.where(seen, bias - np.tensordot(mean, weights, 1), -np.inf)
    return Probes(weights, bias, np.asarray(converged))


def predict(probes: Probes, features: np.ndarray) -> np.ndarray:
    """Predicts the most likely class of each attribute, int [M, A]."""
    predictions = []
    for part in _parts(features, axis=0):
        scores = np.tensordot(part.astype(np.float32, copy=False), probes.weights, 1) + probes.bias
        predictions.append(scores.argmax(-1))
    return np.concatenate(predictions)


@jax.jit
def _centred(features: jax.Array, mean: jax.Array) -> jax.Array:
    """Centres features on the device, so that counts become floats only there."""
    return features.astype(jnp.float32) - mean


def _parts(features: np.ndarray, axis: int) -> list[np.ndarray]:
    """Splits features [M, F] along an axis into parts of at most about `_AT_ONCE`."""
    return np.array_split(features, -(-features.size // _AT_ONCE), axis)
