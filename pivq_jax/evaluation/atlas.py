"""Code atlas: for each code, images that contain it and the effect of exchanging it."""

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
from pivq_jax.data.sources import Source
from pivq_jax.inference import TrainedModel, decode_batched, images_of

__all__ = ["Exchange", "Meaning", "atlas_picture", "exchange", "informative_codes"]

# Grey levels. Heat maps with a smaller maximum are not stretched to the full colour range, so that
# they do not show rounding.
FAINT = 8.0


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


class Exchange(NamedTuple):
    """Effect of exchanging a code on decoded images that contain it."""

    images: np.ndarray  # int [E], the images it was exchanged in, as rows of `codes`
    before: np.ndarray  # uint8 [E, H, W, 3], images decoded from the original codes
    after: np.ndarray  # uint8 [E, H, W, 3], images decoded after the exchange
    change: np.ndarray  # f32 [H, W], mean absolute change in grey levels (0 to 255)


def mutual_information(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Empirical mutual information of the presence of codes and a factor [M], in bits, [K].

    `counts` [K, C] are the images of each of the factor's classes that hold the code.
    """
    having = counts / len(labels)
    classes = np.bincount(labels, minlength=counts.shape[1]) / len(labels)
    joint = np.stack([having, classes - having])
    expected = joint.sum(-1, keepdims=True) * classes
    ratio = np.where(joint > 0, joint, 1.0) / np.where(joint > 0, expected, 1.0)
    return np.maximum(np.sum(joint * np.log2(ratio), axis=(0, 2)), 0.0)


def informative_codes(
    space: sampling.CodeSpace,
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
    attribute, empty without labels.
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
    for column, values in zip(labels.T, factors.values(), strict=True):
        pairs = np.int64(len(values)) * held + column[images]
        found = np.bincount(pairs, minlength=size * len(values))
        counts.append(found.reshape(size, len(values)))
    bits = np.stack([mutual_information(*each) for each in zip(counts, labels.T)], axis=1)
    # 2 M ln 2 times the information is chi-squared if code and factor are independent (G-test).
    freedom = np.array([max(1, len(np.unique(column)) - 1) for column in labels.T])
    chance = jax.scipy.stats.chi2.sf(2 * len(codes) * np.log(2) * bits, freedom)
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
        of_all = np.bincount(labels[:, a], minlength=len(values)) / len(labels)
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


def exchange(
    model: TrainedModel,
    codes: np.ndarray,
    code: int,
    count: int,
    key: jax.Array,
    batch_size: int | None = None,
) -> Exchange:
    """Exchanges a code, in the first `count` images that contain it, for its partner in others.

    Each image with the code is paired with a random image without it, as in recombination, and the
    sets remain valid. Sampling exchanges codes in this way, but several at a time (with several
    stages, all codes of a patch). `codes` are int32 [M, N], those of real images. Raises InputError
    if the code is in no image or in all images.
    """
    has = (codes == code).any(1)
    if not has.any() or has.all():
        raise InputError(
            f"code {code} is in {'all' if has.any() else 'none'} of {len(codes)} images"
        )
    images, others = np.flatnonzero(has)[:count], np.flatnonzero(~has)
    code_key = jax.random.fold_in(key, code)
    drawn = others[np.asarray(jax.random.randint(code_key, (count,), 0, len(others)))]
    filled = np.resize(images, count)  # one shape, so that all codes share one compilation
    edited = sampling.exchange_code(model.space, model.codebook, codes[filled], codes[drawn], code)
    before = decode_batched(model, codes[images], batch_size)
    after = decode_batched(model, np.asarray(edited)[: len(images)], batch_size)
    change = np.abs(after.astype(np.float32) - before.astype(np.float32)).mean((0, 3))
    return Exchange(images, before, after, change)


def atlas_picture(
    source: Source, entries: Sequence[tuple[Meaning, Exchange]], examples: int = 6, pairs: int = 2
) -> Pixels:
    """Draws one row per code: its meaning, images with it, exchanges, and a map of the change.

    `source` has the images that `Exchange.images` refers to; a row shows `examples` of them, and
    decoded ones before and after the exchange, the `pairs` that change most. Text and map are in
    grey levels; docs/probes.md has the scale of the map. Returns uint8 [height, width, 3].
    """
    size = entries[0][1].before.shape[1]
    scale = max(1, -(-96 // size))  # tiles of 96 pixels or more
    tile, pad, gap, margin, head = size * scale, 4, 24, 230, 24
    second = margin + examples * (tile + pad) + gap
    third = second + 2 * pairs * (tile + pad) + gap
    starts = {
        "images that have the code": margin,
        "decoded; beside it, code exchanged: the largest changes": second,
        "mean change": third,
    }
    height = head + len(entries) * (tile + pad)
    canvas = Image.new("RGB", (third + max(tile, 80), height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for title, left in starts.items():
        draw.text((left, 4), title, "black", font)
    for row, (meaning, effect) in enumerate(entries):
        top = head + row * (tile + pad)
        draw.line((0, top - pad, canvas.width, top - pad), "lightgrey")
        draw.multiline_text((pad, top), _describe(meaning, effect), "black", font, spacing=2)
        if re.fullmatch("#[0-9a-fA-F]{6}", meaning.value):  # shows the colour itself
            draw.rectangle((margin - 22, top + 15, margin - 8, top + 29), meaning.value, "grey")
        originals = images_of(source, effect.images[:examples])
        changes = np.abs(effect.after.astype(np.float32) - effect.before).mean((1, 2, 3))
        most = np.argsort(-changes, kind="stable")[:pairs]
        shown = np.stack([effect.before[most], effect.after[most]], axis=1)
        heat = _heat(effect.change)
        parts: list[Pixels] = [originals, shown.reshape(-1, *heat.shape), heat[None]]
        for left, images in zip(starts.values(), parts, strict=True):
            strip = grid(images, len(images), scale, pad)[pad:-pad, pad:]
            canvas.paste(Image.fromarray(strip), (left, top))
    return np.asarray(canvas)


def _describe(meaning: Meaning, effect: Exchange) -> str:
    lines = [f"code {meaning.code}, in {meaning.share:.1%} of images"]
    if meaning.factor:
        lines.append(f"{meaning.factor}: {meaning.value}")
        lines.append(
            f"{meaning.value_share:.0%} with it, {meaning.value_share_of_all:.0%} of all;"
            f" {meaning.bits:.2f} bits"
        )
    largest = effect.change.max()
    if largest < FAINT:
        lines.append(f"hardly any change: at most {largest:.0f} of 255")
    else:
        lines.append(f"change: mean {effect.change.mean():.1f}, largest {largest:.0f}")
    return "\n".join(lines)


def _heat(change: np.ndarray) -> Pixels:
    """Maps changes, f32 [H, W], to colours, uint8 [H, W, 3]."""
    level = np.sqrt(change / max(float(change.max()), FAINT))
    stops = np.array([[255, 255, 255], [255, 220, 90], [215, 40, 30], [0, 0, 0]])
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(level, at, channel) for channel in stops.T], -1).astype(np.uint8)
