"""The page in a real browser: what a person does with it."""

import io
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pivq_jax import codec
from pivq_jax.data.images import load_image
from tests.explore.browser import (
    assert_shown,
    by_cost,
    codes_of,
    drop,
    pairs_of,
    pixels,
    settle,
    wait_for_name,
)
from tests.explore.image_files import picture

pytestmark = pytest.mark.slow


def test_it_opens_with_two_images_their_codes_and_the_nearest_training_image(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    assert_shown(page, engine, pairs.a.tolist())
    for side, index in (("a", 0), ("b", 1)):
        expected = engine.dataset.test[index]["image"]
        np.testing.assert_array_equal(pixels(page, f"image-{side}"), expected)
    slots = page.locator("#slots .slot")
    shown = slots.evaluate_all("all => all.map((one) => Number(one.dataset.slot))")
    assert shown == by_cost(pairs)
    text = slots.first.locator(".pair").text_content()
    assert f"A: {pairs.a[shown[0]]} " in text and f"B: {pairs.b[shown[0]]} " in text
    assert page.locator("#common .slot").count() == (pairs.a == pairs.b).sum()
    nearest = engine.nearest(pairs.a)
    assert page.locator("#name-copy").text_content() == nearest.picture.name
    np.testing.assert_array_equal(pixels(page, "image-copy"), nearest.picture.image)
    about = page.locator("#about-copy").text_content()
    shared = len({*pairs.a.tolist()} & {*nearest.picture.codes.tolist()})
    assert about.startswith(f"{shared} of 8 codes in common. Pixels differ by ")
    assert "64 of 64 were searched" in about


def test_codes_are_exchanged_and_that_is_undone(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    slots, codes = by_cost(pairs), pairs.a.tolist()
    undo, redo = (page.get_by_role("button", name=name) for name in ("Undo", "Redo"))
    assert undo.is_disabled() and redo.is_disabled()
    states = [list(codes)]
    for place in (1, 0, 1):
        page.locator("#slots .pair").nth(place).click()
        slot = slots[place]
        codes[slot] = int(pairs.b[slot] if codes[slot] == pairs.a[slot] else pairs.a[slot])
        states.append(list(codes))
        assert_shown(page, engine, codes)
    assert page.locator("#slots .pair[aria-pressed=true]").count() == 1
    undo.click()
    assert_shown(page, engine, states[2])
    page.keyboard.press("Control+z")
    assert_shown(page, engine, states[1])
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+y")
    assert_shown(page, engine, states[3])
    undo.click()
    page.locator("#slots .pair").nth(2).click()
    assert redo.is_disabled()  # another way was taken


def test_the_slider_follows_the_interpolation(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    slots, codes = by_cost(pairs), pairs.a.copy()
    slider = page.get_by_role("slider", name="Interpolation from A to B")
    slider.focus()
    for count, slot in enumerate(slots[:2], 1):
        page.keyboard.press("ArrowRight")
        codes[slot] = pairs.b[slot]
        assert slider.get_attribute("aria-valuetext") == f"{count} of {len(slots)} pairs exchanged"
        assert_shown(page, engine, codes.tolist())
    steps = 200  # so many that each exchange of the path has its own
    path = np.asarray(engine.model.interpolate(pairs.a[None], pairs.b[None], steps))[:, 0]
    assert np.sort(codes).tolist() in path.tolist()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 8 + box["width"], box["y"] + box["height"] / 2, steps=20)
    page.mouse.up()
    assert_shown(page, engine, pairs.b.tolist())
    page.get_by_role("button", name="Undo").click()  # the whole pull at once
    settle(page)
    assert codes_of(page) != pairs.b.tolist()


def test_an_image_is_chosen(open_page, engine):
    page = open_page()
    page.get_by_role("button", name="Choose for B").click()
    dialog = page.get_by_role("dialog", name="Choose a test image for B")
    dialog.get_by_role("button", name="Next").click()
    dialog.get_by_role("button", name="30, test image").click()
    wait_for_name(page, "b", "test image 30")
    page.get_by_role("button", name="Choose for A").click()
    page.get_by_label("Any number").fill("127")
    page.keyboard.press("Enter")
    wait_for_name(page, "a", "test image 127")
    assert_shown(page, engine, pairs_of(engine, 127, 30).a.tolist())
    np.testing.assert_array_equal(pixels(page, "image-b"), engine.dataset.test[30]["image"])


def test_an_own_image_is_dropped_or_picked(open_page, engine, tmp_path):
    page = open_page()
    name = "<img src=x onerror=alert(1)>.png"  # names are shown and never interpreted
    own = tmp_path / "own.png"
    picture(40, 50).save(own)
    image = load_image(own, engine.size)
    drop(page, "#side-b", (name, own.read_bytes()))
    wait_for_name(page, "b", "onerror")
    settle(page)
    assert page.locator("#name-b").text_content() == name and not page.locator("img").count()
    np.testing.assert_array_equal(pixels(page, "image-b"), image)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Own image for A").click()
    chooser.value.set_files(own)
    wait_for_name(page, "a", "own.png")
    settle(page)
    np.testing.assert_array_equal(pixels(page, "image-a"), image)
    assert page.locator("#slots .slot").count() == 0  # both are the same image now
    assert page.get_by_role("slider").is_disabled()


def test_a_code_is_replaced_by_any_entry(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    slot, other = by_cost(pairs)[:2]
    codes, code = pairs.a.tolist(), int(pairs.a[slot])
    page.get_by_role("button", name=f"Replace {code}", exact=True).click()
    dialog = page.get_by_role("dialog", name=f"Replace code {code}")
    page.wait_for_selector("#entries-list .amount >> nth=11")
    free = [e for e in (pairs.b[slot], *engine.neighbours(code)) if e not in codes]
    free = [int(e) for e in dict.fromkeys(free)]  # the partner, then the nearest
    shown = dialog.locator(".thumb .code").all_text_contents()
    assert [int(text) for text in shown] == free[:12]
    dialog.get_by_role("button", name="More").click()
    page.wait_for_selector(f"#entries-list .amount >> nth={len(free) - 1}")
    dialog.locator(".thumb").nth(3).click()
    codes[slot] = free[3]
    assert_shown(page, engine, codes)
    assert f"By hand: {free[3]}" in page.locator("#slots .slot").first.text_content()
    # An entry by its number; one that the image has is refused, and the dialog stays.
    page.get_by_role("button", name=f"Replace {free[3]}", exact=True).click()
    page.get_by_label("Any entry").fill(str(codes[other]))
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("is in the image already").wait_for()
    page.get_by_label("Any entry").fill(str(free[5]))
    page.get_by_role("button", name="Put it in").click()
    codes[slot] = free[5]
    assert_shown(page, engine, codes)


def test_image_and_codes_are_saved_and_opened_again(open_page, engine, tmp_path):
    page = open_page()
    page.locator("#slots .pair").nth(1).click()
    settle(page)
    codes = codes_of(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save image").click()
    saved = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert saved.format == "PNG" and download.value.suggested_filename == "face.png"
    np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), pixels(page))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save codes").click()
    assert download.value.suggested_filename == "face.pivq"
    download.value.save_as(tmp_path / "mine.pivq")
    assert codec.read(tmp_path / "mine.pivq", engine.model).codes.tolist() == [sorted(codes)]
    other = open_page()
    with other.expect_file_chooser() as chooser:
        other.get_by_role("button", name="Open codes").click()
    chooser.value.set_files(tmp_path / "mine.pivq")
    wait_for_name(other, "a", "mine.pivq")
    assert_shown(other, engine, sorted(codes))


def test_a_new_face_is_made_and_a_link_holds_it(open_page, engine):
    page = open_page()
    page.get_by_role("button", name="New face").click()
    wait_for_name(page, "a", "training")
    settle(page)
    names = [page.locator(f"#name-{side}").text_content() for side in "ab"]
    indices = [int(name.removeprefix("training image ")) for name in names]
    pairs, codes = engine.pair(*engine.pool.codes[indices]), codes_of(page)
    assert np.all((codes == pairs.a) | (codes == pairs.b))
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied").wait_for(state="attached")
    link = page.evaluate("navigator.clipboard.readText()")
    other = open_page("#" + urlsplit(link).fragment)
    assert_shown(other, engine, codes)
    assert [other.locator(f"#name-{side}").text_content() for side in "ab"] == names
