"""Factors in a real browser."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from pivq_jax.explore.engine import Engine
from pivq_jax.explore.factors import fit_probe
from pivq_jax.explore.pool import shrink
from tests.explore.browser import assert_shown, codes_of, pixels, settle

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


def shown(page: Any) -> str:
    """The value that the page shows."""
    settle(page)
    select = page.get_by_role("combobox", name="shade", exact=True)
    return select.evaluate("(select) => select.selectedOptions[0].text")


def test_a_factor_is_turned_and_that_is_undone(open_page, engine):
    dark = ".".join(map(str, engine.example(0).codes))
    page = open_page(f"#m={engine.describe()['id']}&a=e0&b=e2&c={dark}")
    assert shown(page) == "dark"
    before, image = codes_of(page), pixels(page)
    after = engine.edit(np.array(before), 0, 1).tolist()
    page.get_by_role("combobox", name="shade", exact=True).select_option(label="light")
    page.locator("#turned", has_text="The image shows shade: light.").wait_for()
    assert shown(page) == "light"
    assert_shown(page, engine, after)
    assert (pixels(page) != image).any()
    replaced = sum(one != other for one, other in zip(before, after, strict=True))
    assert f"Replaced: {replaced} code" in page.locator("#turned").text_content()
    assert page.locator(".by-hand").count() == replaced
    page.get_by_role("button", name="Undo").click()
    assert shown(page) == "dark" and codes_of(page) == before
    np.testing.assert_array_equal(pixels(page), image)
    page.get_by_role("button", name="Redo").click()
    assert shown(page) == "light"
    other = open_page(page.evaluate("location.hash"))
    assert shown(other) == "light" and codes_of(other) == after
    credit = page.get_by_role("contentinfo")
    assert "Johan Melin" in credit.text_content() and "](" not in credit.text_content()
    link = credit.get_by_role("link").get_by_text("CC BY 4.0")
    assert link.get_attribute("href").endswith("/licenses/by/4.0/")
