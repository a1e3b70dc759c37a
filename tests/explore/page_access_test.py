"""The page by keyboard, for screen readers, in narrow and wide windows, light and dark."""

import re
from typing import Any

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
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "() => document.activeElement.id || document.activeElement.className"
        )
        if focused in stops or not focused:
            break
        stops.append(focused)
    wanted = ["new-face", "open", "save-codes", "save-image", "copy-link", "choose-a", "file-a"]
    wanted += ["slider", "choose-b", "file-b", "factor-0", "pair"]
    assert [stop for stop in stops if stop in wanted] == wanted  # one stop for all pairs
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
    told = page.locator("#about-code").text_content()
    assert f"Code {pairs.a[slots[-1]]}:" in told and f"Code {pairs.b[slots[-1]]}:" in told
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


@pytest.mark.parametrize("size", SIZES, ids=("narrow", "wide"))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_no_violation_and_nothing_overflows(open_page, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(size=size, scheme=scheme)
    axe = Axe()

    def check(where: str) -> None:
        found = axe.run(page, options={"resultTypes": ["violations", "incomplete"]})
        assert found.violations_count == 0, f"{where}: {found.generate_report()}"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0], f"{where} is {width} pixels wide"

    check("page")
    page.locator("#slots .pair").first.click()
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


def test_narrow_and_wide_pages_lay_images_out_as_they_should(open_page):
    def boxes(size: tuple[int, int]) -> dict[str, Any]:
        page = open_page(size=size)
        names = ("image-a", "image", "image-b", "image-copy")
        return {name: page.locator(f"#{name}").bounding_box() for name in names}

    narrow, wide = (boxes(size) for size in SIZES)
    assert narrow["image"]["width"] == pytest.approx(0.3 * SIZES[0][1], abs=1)
    assert narrow["image-a"]["y"] == narrow["image-b"]["y"] > narrow["image"]["y"]
    left = [wide[name]["x"] for name in ("image-a", "image", "image-b", "image-copy")]
    assert left == sorted(left)
    assert wide["image"]["width"] > 1.3 * wide["image-a"]["width"]
    assert wide["image-a"]["width"] == pytest.approx(wide["image-b"]["width"], abs=1)
    assert all(box["width"] == pytest.approx(box["height"], abs=1) for box in wide.values())


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


def test_colours_follow_the_scheme(open_page):
    def lightness(scheme: str) -> int:
        page = open_page(scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)))

    assert lightness("light") > 700 and lightness("dark") < 100


def test_codes_in_the_image_differ_in_forced_colours(open_page):
    page = open_page()
    page.emulate_media(forced_colors="active")
    look = """(one) => {
      const { color, border, outline } = getComputedStyle(one); // all backgrounds look the same
      return [color, border, outline].join(", ");
    }"""
    here, there = (
        {chip.evaluate(look) for chip in page.locator(selector).all()}
        for selector in ("#slots .chip.present", "#slots .chip:not(.present)")
    )
    assert here and there and not here & there
