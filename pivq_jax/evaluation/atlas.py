"""Code atlas: for each code, images that contain it and the effect of exchanging it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import Pixels, grid
from pivq_jax.data.sources import Source
from pivq_jax.inference import TrainedModel, decode_batched, images_of
from pivq_jax.sampling import Meaning, exchange_code

__all__ = ["Exchange", "atlas_picture", "exchange"]

# Grey levels. Heat maps with a smaller maximum are not stretched to the full colour range, so that
# they do not show rounding.
FAINT = 8.0


class Exchange(NamedTuple):
    """Effect of exchanging a code on decoded images that contain it."""

    images: np.ndarray  # int [E], the images it was exchanged in, as rows of `codes`
    before: np.ndarray  # uint8 [E, H, W, 3], images decoded from the original codes
    after: np.ndarray  # uint8 [E, H, W, 3], images decoded after the exchange
    change: np.ndarray  # f32 [H, W], mean absolute change in grey levels (0 to 255)


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
    sets remain valid. Sampling exchanges codes in this way, but several at a time. `codes`
    are int32 [M, N], those of real images. Raises InputError if the code is in no image or in all
    images.
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
    edited = exchange_code(model.space, model.codebook, codes[filled], codes[drawn], code)
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
            strip = grid(images, len(images), pad, scale)[pad:-pad, pad:]
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
