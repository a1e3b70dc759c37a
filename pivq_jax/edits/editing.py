"""Edits of images by the labelled factors of a data set, with pictures."""

import re
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pivq_jax.common.errors import InputError
from pivq_jax.common.labels import is_known
from pivq_jax.common.output import progress_bar
from pivq_jax.common.parallel import print_once
from pivq_jax.common.pictures import Pixels, grid, magnification, reconstruction_grid
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import TrainedModel, decode_batched, encode_split, with_parents
from pivq_jax.sampling.edit import check_values


def learn_factors(session: Session, changes: Mapping[str, str]) -> TrainedModel:
    """Returns the model with labels for `TrainedModel.edit`: its own, or those of its data.

    Raises InputError if there are none and, before images are encoded, as `check_edit` does.
    """
    model, factors = session.model, session.dataset.factors
    check_edit(model, changes, factors)
    if model.labels is not None:
        return model
    if not factors:
        raise InputError("edits need labelled images, and these have none")
    model = with_parents(model, session.pool, factors)
    check_edit(model, changes)  # some values may be shown by no image
    return model


def check_edit(
    model: TrainedModel,
    changes: Mapping[str, str],
    factors: Mapping[str, tuple[str, ...]] | None = None,
) -> None:
    """Raises InputError if a model cannot be edited, or its labels do not have the changes; if it
    has none, the `factors`, if they are known.
    """
    if model.space.ordered:
        raise InputError("edits replace codes of a set: those of a positional model have places")
    try:
        if model.labels and changes:
            model.labels.wanted(**changes)
        elif factors:
            check_values(factors, changes)
    except ValueError as error:
        raise InputError(f"--set: {error}") from error


def edit(session: Session, changes: Mapping[str, str], count: int) -> None:
    """Writes test images, decoded, and the same edited, as a picture such as `edits_hair_bun.png`.

    Without changes, `edits.png` shows the first test image with every value of every factor. Raises
    as `learn_factors` does.
    """
    model = learn_factors(session, changes)
    if not changes:
        assert model.labels
        values = sum(map(len, model.labels.factors.values()))
        print_once(f"the first test image, with each of the {values} values of its factors")
        codes = encode_split(model, first_images(session.dataset.test, 1))
        session.write("edits.png", all_values(model, codes[0]))
        return
    codes = encode_split(model, first_images(session.dataset.test, count))
    before = session.decode(codes)
    after = session.decode(np.asarray(model.edit(codes, **changes)))
    picture = reconstruction_grid(before, after, 8)
    session.write(f"edits_{name_of(changes)}.png", picture)


def name_of(changes: Mapping[str, str]) -> str:
    """Returns a part of a file's name that tells edits from others, as `hair_bun_eyes_wide`."""
    name = "_".join(part for change in changes.items() for part in change)
    name = re.sub(r"[#\s]", "", name)
    return re.sub(r"[^\w-]", lambda found: f"x{ord(found[0]):x}", name)  # age=<5 is not age=5


def all_values(model: TrainedModel, codes: np.ndarray) -> Pixels:
    """Draws an image with every value of each factor, one row per factor; its own are framed.

    The places of values that no training image shows stay empty.
    """
    assert model.labels
    factors = model.labels.factors
    now = model.read_factors(codes[None])[0]
    image_size = model.config.data.image_size
    size, pad, head, margin = image_size * magnification(image_size), 6, 16, 110
    most = max(map(len, factors.values()))
    width, height = margin + most * (size + pad), len(factors) * (size + head + pad)
    canvas = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=11)
    rows = progress_bar(factors.items(), desc="editing", unit=" factors")
    for row, (name, values) in enumerate(rows):
        top = row * (size + head + pad)
        draw.text((pad, top + head), name, "black", font)
        of_images = model.labels.values[:, row]
        shown = np.unique(of_images[is_known(of_images, values)])
        edited = [model.edit(codes[None], **{name: values[column]}) for column in shown]
        images = decode_batched(model, np.concatenate(edited), len(edited))
        for column, image in zip(shown, images, strict=True):
            left = margin + column * (size + pad)
            draw.text((left, top + 1), values[column][: size // 6], "black", font)
            canvas.paste(Image.fromarray(grid(image[None], 1, pad=0)), (left, top + head))
            if column == now[row]:
                box = (left - 2, top + head - 2, left + size + 1, top + head + size + 1)
                draw.rectangle(box, outline="black", width=2)
    return np.asarray(canvas)
