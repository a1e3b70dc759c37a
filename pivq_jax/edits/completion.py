"""Completions of images with hidden regions, with a picture."""

import dataclasses

import numpy as np

from pivq_jax.common.parallel import print_once
from pivq_jax.common.pictures import sample_grid
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import images_of

REGIONS = ("left", "right", "upper", "lower", "centre", "patches")
GREY = 128  # of hidden pixels in pictures
# A visible pixel has changed where a colour is so many levels of 255 away, and an image where more
# than this share of its visible pixels has.
CHANGED_LEVELS, CHANGED_SHARE = 30, 0.01


def visible_pixels(region: str, size: int, count: int, seed: int = 0) -> np.ndarray:
    """Returns which pixels are visible, bool [B, size, size], if one of `REGIONS` is hidden."""
    if region == "patches":
        halves = np.tile(np.arange(64) < 32, (count, 1))
        drawn = np.random.default_rng(seed % 2**64).permuted(halves, axis=1)
        places = np.arange(size) * 8 // size
        return drawn.reshape(count, 8, 8)[:, places][:, :, places]
    half, inner = size // 2, slice(size // 4, size - size // 4)
    hidden = {
        "left": np.s_[:, :, :half],
        "right": np.s_[:, :, half:],
        "upper": np.s_[:, :half],
        "lower": np.s_[:, half:],
        "centre": np.s_[:, inner, inner],
    }
    visible = np.ones((count, size, size), bool)
    visible[hidden[region]] = False
    return visible


def write_completions(session: Session, region: str, count: int) -> None:
    """Writes test images with a hidden region, completed, and whole: `completions_REGION.png`."""
    model, test = session.model, session.dataset.test
    if model.parents is None:
        model = dataclasses.replace(model, parents=session.pool_codes)
    images = images_of(test, range(min(count, len(test))))
    print_once(f"completing {len(images)} images of which a part is hidden ({region})")
    visible = visible_pixels(region, images.shape[1], len(images), session.seed)
    codes = model.complete(images_to_float(images), visible)
    shown = np.where(visible[..., None], images, np.uint8(GREY))
    completed = np.asarray(images_to_uint8(model.decode(codes)))
    changed = count_changed(completed, images, visible)
    print_once(
        f"{changed} of {len(images)} completions change what is visible: codes are fitted to those"
        " pixels, which are not copied"
    )
    session.write(f"completions_{region}.png", sample_grid(shown, images, completed))


def count_changed(completed: np.ndarray, images: np.ndarray, visible: np.ndarray) -> int:
    """Counts the images of which more than 1 % of the visible pixels have changed, by more than 30
    levels in some colour: of uint8 [M, H, W, 3] twice, and bool [M, H, W].
    """
    levels = np.abs(completed.astype(int) - images).max(-1)
    differs = (levels > CHANGED_LEVELS) & visible
    return int(np.sum(differs.sum((1, 2)) > CHANGED_SHARE * visible.sum((1, 2))))
