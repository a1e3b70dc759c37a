"""The page of the included model in a real browser, as a stranger meets it."""

import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import pytest

from pivq_jax.commands.task import hold_out
from pivq_jax.common.errors import InputError
from pivq_jax.explore.engine import Engine
from pivq_jax.inference.opening import from_pretrained
from tests.explore.browser import pixels, settle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawing() -> Iterator[threading.Event]:
    """Set when the drawing of faces may go on, which fails then."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def engine(drawing: threading.Event) -> Engine:
    """The explorer of the included model, whose data is not there yet."""

    def draw() -> NoReturn:
        drawing.wait()
        raise InputError("nothing is drawn in this test")

    model = from_pretrained("toon_faces")
    return Engine(*hold_out(model), "decoded training image", draw)


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """The share of pixels of which a channel changes by more than 30 of 255 grey levels."""
    return float((np.abs(before.astype(int) - after).max(-1) > 30).mean())


def test_faces_are_there_before_any_is_drawn(open_page: Any, drawing: threading.Event):
    page = open_page()
    assert not drawing.is_set() and "decoded" in page.locator("#name-a").text_content()
    assert page.get_by_role("progressbar").is_visible()
    assert pixels(page).std() > 30
    page.get_by_role("button", name="New face", exact=True).click()
    page.locator("#name-a").get_by_text("training image", exact=False).wait_for()
    settle(page)


def test_the_first_click_and_the_first_step_of_the_slider_are_seen(open_page: Any):
    page = open_page()
    before = pixels(page)
    page.locator("#slots .pair").first.click()
    settle(page)
    clicked = changed(before, pixels(page))
    page.get_by_role("button", name="Undo").click()
    settle(page)
    np.testing.assert_array_equal(pixels(page), before)
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    stepped = changed(before, pixels(page))
    assert clicked >= 0.05 and stepped >= 0.05
    assert page.locator("#slots .amount").first.text_content() == f"{round(100 * stepped)}%"
