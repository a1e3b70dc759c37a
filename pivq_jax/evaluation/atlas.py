"""The code atlas: for a code, the images that have it, and what changes when it is exchanged."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import Pixels, grid
from pivq_jax.data.sources import Example, Source
from pivq_jax.evaluation.reconstruction import decode_batched
from pivq_jax.inference import TrainedModel

# Grey levels: a code that changes no pixel by more gets a pale heat map, not a map of rounding.
FAINT = 8.0


class Meaning(NamedTuple):
    """What having a code says about an image."""

    code: int
    share: float  # of the images that have it
    bits: float  # mutual information of having it and `factor`; without labels, its entropy
    factor: str = ""  # the factor it tells most of; empty without labels
    value: str = ""  # the value that is most over-represented among the images that have it
    value_share: float = 0.0  # of the images that have the code, those with the value
    value_share_of_all: float = 0.0  # the same of all images


class Exchange(NamedTuple):
    """What exchanging a code does to the decoded images that have it."""

    images: np.ndarray  # int [E], the images it was exchanged in, rows of `codes`
    before: np.ndarray  # uint8 [E, H, W, 3]
    after: np.ndarray  # uint8 [E, H, W, 3]
    change: np.ndarray  # f32 [H, W], mean absolute change in grey levels (0 to 255)


def mutual_information(present: npt.ArrayLike, labels: npt.ArrayLike) -> np.ndarray:
    """Mutual information, in bits, of having each code and a factor.

    Empirical, with no correction for chance: about (C - 1) / (2 M ln 2) bits too high.

    Args:
      present: bool [M, K], whether image m has code k.
      labels: int [M], the factor's class of each image, at least 0.

    Returns:
      f64 [K].
    """
    present, labels = np.asarray(present, bool), np.asarray(labels)
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    having = present.T @ one_hot / len(labels)  # [K, C]
    classes = one_hot.mean(0)
    joint = np.stack([having, classes - having])
    expected = joint.sum(-1, keepdims=True) * classes
    ratio = np.where(joint > 0, joint, 1.0) / np.where(joint > 0, expected, 1.0)
    return np.maximum(np.sum(joint * np.log2(ratio), axis=(0, 2)), 0.0)


def informative_codes(
    codes: npt.ArrayLike,
    codebook_size: int,
    labels: npt.ArrayLike,
    factors: Mapping[str, Sequence[str]],
    count: int,
) -> list[Meaning]:
    """The codes that say most, factor by factor.

    Each code belongs to the factor that it has the most mutual information with. The factors, the
    best told first, give their best codes in turn, so that no factor fills the list. Without labels
    the codes of most entropy come first: those that about half of the images have.

    Args:
      codes: int [M, N], values in [0, K).
      codebook_size: K.
      labels: int [M, A].
      factors: attribute -> names of its classes, A of them; empty where there are no labels.
      count: codes to list, at least 1. Fewer are listed if fewer say anything: with labels, beyond
        chance (a likelihood-ratio test at 1 %, corrected for the number of codes and factors).
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    present = np.zeros((len(codes), codebook_size), bool)
    present[np.arange(len(codes))[:, None], codes] = True
    share = present.mean(0)
    candidates = np.flatnonzero((share > 0) & (share < 1))
    if not factors:
        p = share[candidates]
        entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
        best = np.argsort(-entropy, kind="stable")[:count]
        return [Meaning(int(candidates[i]), float(p[i]), float(entropy[i])) for i in best]

    bits = np.stack([mutual_information(present, column) for column in labels.T], axis=1)
    # 2 M ln 2 times the information is chi-squared if code and factor are independent (G-test).
    freedom = np.array([max(1, len(np.unique(column)) - 1) for column in labels.T])
    chance = jax.scipy.stats.chi2.sf(2 * len(codes) * np.log(2) * bits, freedom)
    candidates = candidates[np.asarray(chance)[candidates].min(1) * bits.size < 0.01]
    best_factor = bits.argmax(1)
    queues = []
    for a in range(len(factors)):
        own = candidates[best_factor[candidates] == a]
        queues.append(own[np.argsort(-bits[own, a], kind="stable")])
    # The best code of every factor, then the second of every factor, and so on.
    places = [
        (rank, -bits[code, a], int(code), a)
        for a, queue in enumerate(queues)
        for rank, code in enumerate(queue)
    ]
    names = list(factors)
    meanings = []
    for _, _, code, a in sorted(places)[:count]:
        value_shares = np.bincount(labels[present[:, code], a], minlength=len(factors[names[a]]))
        value_shares = value_shares / value_shares.sum()
        of_all = np.bincount(labels[:, a], minlength=len(value_shares)) / len(labels)
        value = int(np.argmax(value_shares - of_all))
        meanings.append(
            Meaning(
                code=code,
                share=float(share[code]),
                bits=float(bits[code, a]),
                factor=names[a],
                value=factors[names[a]][value],
                value_share=float(value_shares[value]),
                value_share_of_all=float(of_all[value]),
            )
        )
    return meanings


def exchange(
    model: TrainedModel, codes: np.ndarray, code: int, count: int, seed: int, batch_size: int
) -> Exchange:
    """Exchanges a code, in images that have it, for what other images have in its stead.

    Each image that has the code is paired with a random one that does not, their sets are paired
    like for like as in recombination, and the code's partner takes its place. So it is the
    exchange that sampling makes, one code alone, and the sets stay valid.

    Args:
      model: the trained model.
      codes: int32 [M, N], the codes of real images.
      code: the codebook entry.
      count: images to exchange it in: the first ones that have it, or all if there are fewer.
      seed: decides the other images.
      batch_size: images decoded at once.

    Raises:
      InputError: no image has the code, or all have.
    """
    has = (codes == code).any(1)
    if not has.any() or has.all():
        raise InputError(
            f"code {code} is in {'all' if has.any() else 'none'} of {len(codes)} images"
        )
    images, others = np.flatnonzero(has)[:count], np.flatnonzero(~has)
    key = jax.random.fold_in(jax.random.key(seed), code)
    drawn = others[np.asarray(jax.random.randint(key, (count,), 0, len(others)))]
    filled = np.resize(images, count)  # one shape, so that all codes share one compilation
    edited = sampling.exchange_code(codes[filled], codes[drawn], model.codebook, code, model.kind)
    before = decode_batched(model, codes[images], batch_size)
    after = decode_batched(model, np.asarray(edited)[: len(images)], batch_size)
    change = np.abs(after.astype(np.float32) - before.astype(np.float32)).mean((0, 3))
    return Exchange(images, before, after, change)


def atlas_picture(
    source: Source | Sequence[Example],
    entries: Sequence[tuple[Meaning, Exchange]],
    examples: int = 6,
    pairs: int = 2,
) -> Pixels:
    """A row for each code: what it says, images that have it, exchanges, and where pixels change.

    The heat map runs from white (no change) over yellow and red to black (the row's largest change,
    or `FAINT` if that is less), by the square root, so that small changes can be seen. The text
    gives the mean and the largest change in grey levels.

    Args:
      source: the images that the exchanges' `images` point into.
      entries: of each code, at least one.
      examples: images that have it, in each row.
      pairs: decoded images before and after the exchange, in each row.
    """
    size = entries[0][1].before.shape[1]
    scale = max(1, -(-64 // size))  # tiles of 64 pixels or more: four lines of text fit
    tile, pad, gap, margin, head = size * scale, 4, 24, 230, 24
    second = margin + examples * (tile + pad) + gap
    third = second + 2 * pairs * (tile + pad) + gap
    starts = (margin, second, third)
    height = head + len(entries) * (tile + pad)
    canvas = Image.new("RGB", (third + max(tile, 80), height), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    titles = ("images that have the code", "decoded; beside it, code exchanged", "mean change")
    for left, title in zip(starts, titles, strict=True):
        draw.text((left, 4), title, "black", font)
    for row, (meaning, found) in enumerate(entries):
        top = head + row * (tile + pad)
        draw.line((0, top - pad, canvas.width, top - pad), "lightgrey")
        draw.multiline_text((pad, top), _describe(meaning, found), "black", font, spacing=2)
        if re.fullmatch("#[0-9a-fA-F]{6}", meaning.value):  # a colour, which its number hides
            draw.rectangle((margin - 22, top + 15, margin - 8, top + 29), meaning.value, "grey")
        originals = np.stack([source[int(i)]["image"] for i in found.images[:examples]])
        shown = np.stack([found.before[:pairs], found.after[:pairs]], axis=1)
        heat = _heat(found.change)
        parts: list[Pixels] = [originals, shown.reshape(-1, *heat.shape), heat[None]]
        for left, images in zip(starts, parts, strict=True):
            strip = grid(images, len(images), scale, pad)[pad:-pad, pad:]
            canvas.paste(Image.fromarray(strip), (left, top))
    return np.asarray(canvas)


def _describe(meaning: Meaning, found: Exchange) -> str:
    lines = [f"code {meaning.code}, in {meaning.share:.1%} of images"]
    if meaning.factor:
        lines.append(f"{meaning.factor}: {meaning.value}")
        lines.append(
            f"{meaning.value_share:.0%} with it, {meaning.value_share_of_all:.0%} of all;"
            f" {meaning.bits:.2f} bits"
        )
    lines.append(f"change: mean {found.change.mean():.1f}, largest {found.change.max():.0f}")
    return "\n".join(lines)


def _heat(change: np.ndarray) -> Pixels:
    """f32 [H, W] -> uint8 [H, W, 3]."""
    level = np.sqrt(change / max(float(change.max()), FAINT))
    stops = np.array([[255, 255, 255], [255, 220, 90], [215, 40, 30], [0, 0, 0]])
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(level, at, channel) for channel in stops.T], -1).astype(np.uint8)
