"""Factors in a real browser, turned with a server and without."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from pivq_jax.explore.engine import Engine
from pivq_jax.explore.factors import fit_probe
from pivq_jax.explore.pool import shrink
from tests.explore.browser import (
    SCHEMES,
    SIZES,
    assert_shown,
    codes_of,
    pixels,
    settle,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(engine: Engine) -> Engine:
    """The engine as if its images were drawn faces, and the untrained model decoded a dark one."""
    config = engine.model.config.with_fields({"data.name": "toon_faces"})
    own = Engine(dataclasses.replace(engine.model, config=config), engine.dataset)
    dark = own.example(0).codes
    images = own.decode(np.stack([dark, own.edit(dark, 0, 1)]))
    shades = {"shade": ("dark", "light")}
    own.probe = fit_probe(np.asarray(shrink(images)), np.array([[0], [1]]), shades)
    return own


def dark_faces(engine: Engine) -> str:
    """A link to two dark images, of which the first is decoded."""
    codes = ".".join(map(str, engine.example(0).codes))
    return f"#m={engine.describe()['id']}&a=e0&b=e2&c={codes}"


def shown(page: Any) -> str:
    """The value that the page shows."""
    settle(page)
    return page.get_by_role("combobox", name="shade", exact=True).evaluate(
        "(select) => select.selectedOptions[0].text"
    )


def wait_for_outcome(page: Any, value: str) -> None:
    """Waits until the page tells what became of a choice."""
    page.locator("#turned", has_text=f"The image shows shade: {value}.").wait_for()


def test_a_factor_is_turned_and_that_is_undone(open_page, engine):
    page = open_page(dark_faces(engine))
    assert shown(page) == "dark"
    before, image = codes_of(page), pixels(page)
    after = engine.edit(np.array(before), 0, 1).tolist()
    page.get_by_role("combobox", name="shade", exact=True).select_option(label="light")
    wait_for_outcome(page, "light")
    assert shown(page) == "light"
    assert_shown(page, engine, after)
    assert (pixels(page) != image).any()
    replaced = sum(one != other for one, other in zip(before, after, strict=True))
    assert f"Replaced: {replaced} code" in page.locator("#turned").text_content()
    assert page.locator(".by-hand").count() == replaced
    page.get_by_role("button", name="Undo").click()
    assert shown(page) == "dark"
    assert codes_of(page) == before and page.locator(".by-hand").count() == 0
    np.testing.assert_array_equal(pixels(page), image)
    assert "Choose another value" in page.locator("#turned").text_content()
    page.get_by_role("button", name="Redo").click()
    assert shown(page) == "light"
    other = open_page(page.evaluate("location.hash"))
    assert shown(other) == "light" and codes_of(other) == after


def test_choices_of_one_factor_begin_with_the_same_face(open_page, engine):
    page = open_page(dark_faces(engine))
    before, select = codes_of(page), page.get_by_role("combobox", name="shade", exact=True)
    after = engine.edit(np.array(before), 0, 1).tolist()
    select.focus()
    for key, value, codes in (
        ("ArrowDown", "light", after),
        ("ArrowUp", "dark", before),
        ("ArrowDown", "light", after),
    ):
        page.keyboard.press(key)
        wait_for_outcome(page, value)
        assert shown(page) == value and codes_of(page) == codes
    said = page.locator("#status").text_content()
    assert said == page.locator("#turned").text_content()
    page.keyboard.press("Control+z")
    assert shown(page) == "dark" and codes_of(page) == before
    assert page.get_by_role("button", name="Undo").is_disabled()


def test_a_factor_without_a_sure_value_is_unclear_until_it_is_turned(open_page, engine):
    rng, k, n = np.random.default_rng(0), len(engine.model.codebook), engine.num_codes
    sets = [np.sort(rng.permutation(k)[:n]) for _ in range(200)]
    unsure = [codes for codes in sets if engine.read_factors(codes).tolist() == [-1]]
    turned = [engine.read_factors(engine.edit(codes, 0, 0)).tolist() == [0] for codes in unsure]
    codes = ".".join(map(str, unsure[turned.index(True)]))
    page = open_page(dark_faces(engine).partition("&c=")[0] + f"&c={codes}")
    assert shown(page) == "unclear"
    assert page.locator(".factor .swatch").is_hidden()
    page.get_by_role("combobox", name="shade", exact=True).select_option(label="dark")
    wait_for_outcome(page, "dark")
    assert shown(page) == "dark"


@pytest.mark.parametrize("size, scheme", [*zip(SIZES, SCHEMES, strict=True)])
def test_axe_finds_no_violation_after_a_turn(open_page, engine, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(dark_faces(engine), size, scheme)
    page.get_by_role("combobox", name="shade", exact=True).select_option(label="light")
    wait_for_outcome(page, "light")
    settle(page)
    found = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_drawings_are_engine(open_page, engine):
    page = open_page()
    credit = page.get_by_role("contentinfo")
    assert "Johan Melin" in credit.text_content() and "](" not in credit.text_content()
    links = credit.get_by_role("link")
    assert links.get_by_text("CC BY 4.0").get_attribute("href").endswith("/licenses/by/4.0/")
    assert links.get_by_text("DiceBear").get_attribute("href") == "https://www.dicebear.com"
