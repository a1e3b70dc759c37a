"""The page by keyboard, for screen readers, in narrow and wide windows, light and dark."""

import re

import pytest

from tests.explore.browser import (
    SCHEMES,
    SIZES,
    assert_shown,
    by_cost,
    codes_of,
    drop,
    pairs_of,
    settle,
)

pytestmark = pytest.mark.slow


def test_it_can_be_used_by_keyboard_alone(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    stops: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = "() => document.activeElement.id || document.activeElement.className"
        stops.append(page.evaluate(focused))
    wanted = ["new-face", "open", "save-codes", "save-image", "copy-link", "choose-a", "file-a"]
    wanted += ["slider", "choose-b", "file-b", "factor-0", "pair"]
    found = [stop for stop in dict.fromkeys(stops) if stop in wanted]
    assert found == wanted  # one stop for all pairs
    page.locator("#slots .pair").first.focus()
    slots, codes = by_cost(pairs), pairs.a.tolist()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    codes[slots[1]] = int(pairs.b[slots[1]])
    assert_shown(page, engine, codes)
    page.keyboard.press("End")
    page.keyboard.press("Space")
    codes[slots[-1]] = int(pairs.b[slots[-1]])
    assert_shown(page, engine, codes)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#entries-list .amount >> nth=0")
    page.keyboard.press("Escape")
    assert "replace" in page.evaluate("document.activeElement.className")
    page.keyboard.press("ArrowUp")
    assert "pair" in page.evaluate("document.activeElement.className")
    said = page.get_by_role("status").first.text_content()
    assert re.fullmatch(r"Code \d+ exchanged for \d+\.", said)


@pytest.mark.parametrize("size, scheme", [*zip(SIZES, SCHEMES, strict=True)])
def test_axe_finds_no_violation_and_nothing_overflows(open_page, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(size=size, scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, re.findall(r"\d+", colour)))
    assert lightness > 700 if scheme == "light" else lightness < 100

    def check(where: str) -> None:
        found = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]})
        assert found.violations_count == 0, f"{where}: {found.generate_report()}"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0], f"{where} is {width} pixels wide"

    check("page")
    page.locator("#slots .replace").first.click()
    page.wait_for_selector("#entries-list .amount >> nth=11")
    check("entries")
    page.get_by_label("Any entry").fill(str(codes_of(page)[0]))
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    check("error")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Choose for A").click()
    page.wait_for_selector("#examples-list button.thumb >> nth=23")
    check("images")


def test_the_face_and_errors_are_on_the_screen_beside_the_codes_of_a_telephone(open_page):
    width, height = 400, 800
    page = open_page(size=(width, height))
    pair = page.locator("#slots .pair").last
    pair.scroll_into_view_if_needed()
    page.mouse.wheel(0, 10_000)  # to the end of the page
    page.wait_for_function("scrollY + innerHeight >= document.documentElement.scrollHeight - 1")

    def assert_whole(selector: str) -> None:
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, selector
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, selector

    assert page.evaluate("scrollY") > height / 2
    assert_whole("#image")
    assert_whole("#slots .slot:last-child .pair")
    drop(page, "#codes", ("no.png", b"no image"))
    page.get_by_role("alert").wait_for()
    assert_whole("#alert")
    page.get_by_role("button", name="Close").click()
    face, codes = page.locator("#image").bounding_box(), pair.bounding_box()
    assert face["y"] + face["height"] < codes["y"]  # it covers nothing that is tapped


def test_the_face_is_shown_again_beside_the_codes_of_a_wide_screen(open_page):
    width, height = 1400, 700
    page = open_page(size=(width, height))
    again = page.locator("#image-beside")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#image").scroll_into_view_if_needed()
    again.wait_for(state="hidden")  # the face is in sight
    page.locator("#slots .pair").last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 10_000)
    again.wait_for()
    box = again.bounding_box()
    assert box["width"] > 150 and box["x"] + box["width"] <= width
    assert box["y"] >= 0 and box["y"] + box["height"] <= height
    pixels = "one => one.toDataURL()"
    before = again.evaluate(pixels)
    page.locator("#slots .pair").first.click()
    settle(page)
    assert before != again.evaluate(pixels) == page.locator("#image").evaluate(pixels)


def test_what_is_tapped_on_a_telephone_is_large_enough(open_page):
    page = open_page(size=(400, 800))
    small = """all => all.filter((one) => one.offsetParent).map((one) => {
      const { width, height } = one.getBoundingClientRect();
      return [one.id || one.className, width, height];
    }).filter(([, width, height]) => Math.min(width, height) < 44)"""
    controls = page.locator("button, select, input, summary")
    assert controls.evaluate_all("all => all.filter((one) => one.offsetParent).length") > 20
    assert controls.evaluate_all(small) == []
    page.locator("#slots .replace").first.click()
    page.wait_for_selector("#entries-list .amount >> nth=11")
    assert controls.evaluate_all(small) == []
