"""What the presence of a code in an image indicates."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.labels import is_known


class Meaning(NamedTuple):
    """What the presence of a code in an image indicates."""

    code: int  # the codebook entry
    share: float  # fraction of images that contain the code
    # Mutual information of the code's presence and `factor`; without labels, the entropy of its
    # presence.
    bits: float
    factor: str = ""  # that with the largest mutual information; empty without labels
    value: str = ""  # that which is most over-represented in images with the code
    value_share: float = 0.0  # fraction with this value among images with the code
    value_share_of_all: float = 0.0  # fraction with this value among all images


def informative_codes(
    space: CodeSpace,
    codes: npt.ArrayLike,
    labels: npt.ArrayLike,
    factors: Mapping[str, Sequence[str]],
    count: int,
) -> list[Meaning]:
    """Returns the most informative codes, at most `count`, balanced between factors.

    Each code is attributed to the factor with which it has most mutual information; codes that have
    no more than chance explains are left out. Factors contribute their best codes in turn; without
    labels, the codes of highest entropy come first. docs/probes.md has the details.

    Codes are int [M, N], labels int [M, A]; `factors` are the names of the classes of each
    attribute, empty without labels. Images whose value is `UNKNOWN` do not count for that factor.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    size, (images, held) = space.codebook_size, space.occurrences(codes)
    share = np.bincount(held, minlength=size) / len(codes)
    candidates = np.flatnonzero((share > 0) & (share < 1))
    if not factors:
        p = share[candidates]
        entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
        best = np.argsort(-entropy, kind="stable")[:count]
        return [Meaning(int(candidates[i]), float(p[i]), float(entropy[i])) for i in best]

    counts = []  # [K, C] for each factor: images of each class that hold each code
    known = []  # for each factor: the labels of images of which it is known
    for column, values in zip(labels.T, factors.values(), strict=True):
        labelled = is_known(column, values)
        pairs = (np.int64(len(values)) * held + column[images])[labelled[images]]
        counted = np.bincount(pairs, minlength=size * len(values))
        counts.append(counted.reshape(size, len(values)))
        known.append(column[labelled])
    bits = np.stack([_mutual_information(*each) for each in zip(counts, known)], axis=1)
    # 2 M ln 2 times the information is chi-squared if code and factor are independent (G-test).
    freedom = np.array([max(1, len(np.unique(column)) - 1) for column in known])
    chance = jax.scipy.stats.chi2.sf(2 * np.array([*map(len, known)]) * np.log(2) * bits, freedom)
    # A factor of many values tells more by chance than others: only what is beyond it counts.
    told = np.where(np.asarray(chance) * bits.size < 0.01, bits, 0.0)
    candidates = candidates[told[candidates].max(1) > 0]
    # The best code of every factor, then the second of every factor, and so on.
    places = []
    for a in range(len(factors)):
        own = candidates[told[candidates].argmax(1) == a]
        queue = own[np.argsort(-told[own, a], kind="stable")]
        places += [(rank, -told[code, a], int(code), a) for rank, code in enumerate(queue)]
    meanings = []
    for _, _, code, a in sorted(places)[:count]:
        factor, values = list(factors.items())[a]
        of_all = np.bincount(known[a], minlength=len(values)) / len(known[a])
        value_shares = counts[a][code] / counts[a][code].sum()
        value = int(np.argmax(value_shares - of_all))
        meanings.append(
            Meaning(
                code=code,
                share=float(share[code]),
                bits=float(bits[code, a]),
                factor=factor,
                value=values[value],
                value_share=float(value_shares[value]),
                value_share_of_all=float(of_all[value]),
            )
        )
    return meanings


def _mutual_information(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Empirical mutual information of the presence of codes and a factor [M], in bits, [K].

    `counts` [K, C] are the images of each of the factor's classes that hold the code.
    """
    total = max(1, len(labels))
    having = counts / total
    classes = np.bincount(labels, minlength=counts.shape[1]) / total
    joint = np.stack([having, classes - having])
    expected = joint.sum(-1, keepdims=True) * classes
    ratio = np.where(joint > 0, joint, 1.0) / np.where(joint > 0, expected, 1.0)
    return np.maximum(np.sum(joint * np.log2(ratio), axis=(0, 2)), 0.0)
