"""Completions of images with hidden regions, with a picture."""

import dataclasses

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import sample_grid
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import TrainedModel

REGIONS = ("left", "right", "upper", "lower", "centre", "patches")
GREY = 128  # of hidden pixels in pictures


def visible_pixels(region: str, size: int, count: int, seed: int = 0) -> np.ndarray:
    """Returns which pixels are visible, bool [B, size, size], if a region of `REGIONS` is hidden.

    A half, or `centre`, the square in the middle, of half the width, or `patches`, half of 8 x 8
    squares, drawn for each image.
    """
    visible = np.ones((count, size, size), bool)
    half, quarter = size // 2, size // 4
    if region == "left":
        visible[:, :, :half] = False
    elif region == "right":
        visible[:, :, half:] = False
    elif region == "upper":
        visible[:, :half] = False
    elif region == "lower":
        visible[:, half:] = False
    elif region == "centre":
        visible[:, quarter : size - quarter, quarter : size - quarter] = False
    elif region == "patches":
        drawn = np.random.default_rng(seed).permuted(
            np.tile(np.arange(64) < 32, (count, 1)), axis=1
        )
        places = np.arange(size) * 8 // size
        visible = drawn.reshape(count, 8, 8)[:, places][:, :, places]
    else:
        raise ValueError(f"region = {region!r} is unknown: use one of {', '.join(REGIONS)}")
    return visible


def complete(
    model: TrainedModel, images: np.ndarray, region: str, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Hides a region of images uint8 [B, H, W, 3]; returns what is visible, and completed codes."""
    if model.space.ordered:
        raise InputError("completion changes sets, and positional codes are none")
    visible = visible_pixels(region, images.shape[1], len(images), seed)
    return visible, np.asarray(model.complete(np.asarray(images_to_float(images)), visible))


def write_completions(session: Session, region: str, count: int) -> None:
    """Writes `completions.png`: test images with a hidden region, completed, and whole."""
    model, test = session.model, session.dataset.test
    if model.parents is None:
        model = dataclasses.replace(model, parents=session.pool_codes)
    images = np.stack([test[i]["image"] for i in range(min(count, len(test)))])
    visible, codes = complete(model, images, region, session.seed)
    shown = np.where(visible[..., None], images, np.uint8(GREY))
    completed = np.asarray(images_to_uint8(model.decode(codes)))
    picture = sample_grid(shown, completed, images, scale=session.scale)
    session.write("completions.png", picture)
