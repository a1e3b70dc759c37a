"""The page in a real browser, with a server and without: what a person does with it."""

import io
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.explore.browser import (
    assert_shown,
    by_cost,
    codes_of,
    drop,
    image_file,
    pairs_of,
    pixels,
    settle,
    wait_for_name,
)

pytestmark = pytest.mark.slow


def test_it_opens_with_two_images_and_their_codes(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    assert_shown(page, engine, pairs.a.tolist())
    np.testing.assert_array_equal(pixels(page, "image-a"), engine.dataset.test[0]["image"])
    np.testing.assert_array_equal(pixels(page, "image-b"), engine.dataset.test[1]["image"])
    columns = page.locator("#slots .slot")
    assert [int(s) for s in columns.evaluate_all("all => all.map((e) => e.dataset.slot)")] == (
        by_cost(pairs)
    )
    slot = by_cost(pairs)[0]
    text = columns.first.locator(".pair").text_content()
    assert re.search(rf"A: {pairs.a[slot]} \w+, in the image .*B: {pairs.b[slot]} \w", text)
    common = int((pairs.a == pairs.b).sum())
    assert page.locator("#common .slot").count() == common
    nearest = engine.nearest(pairs.a)
    assert page.locator("#name-copy").text_content() == nearest.picture.name
    np.testing.assert_array_equal(pixels(page, "image-copy"), nearest.picture.image)


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
    pressed = page.locator("#slots .pair[aria-pressed=true]")
    assert pressed.count() == 1 and "1 of" in page.locator("#exchanged").text_content()
    undo.click()
    assert_shown(page, engine, states[2])
    page.keyboard.press("Control+z")
    assert_shown(page, engine, states[1])
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+y")
    assert_shown(page, engine, states[3])
    assert redo.is_disabled()
    for _ in range(3):
        undo.click()
    page.locator("#slots .pair").nth(2).click()
    assert redo.is_disabled()  # another way was taken


def test_the_slider_follows_the_interpolation(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    slots = by_cost(pairs)
    slider = page.get_by_role("slider", name="Interpolation from A to B")
    slider.focus()
    codes = pairs.a.copy()
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
    for part in range(1, 21):
        page.mouse.move(box["x"] + 8 + part / 20 * box["width"], box["y"] + box["height"] / 2)
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
    assert dialog.is_hidden()
    wait_for_name(page, "b", "test image 30")
    assert_shown(page, engine, pairs_of(engine, 0, 30).a.tolist())
    np.testing.assert_array_equal(pixels(page, "image-b"), engine.dataset.test[30]["image"])
    page.get_by_role("button", name="Choose for A").click()
    page.get_by_label("Any number").fill("127")
    page.keyboard.press("Enter")
    wait_for_name(page, "a", "test image 127")
    assert_shown(page, engine, pairs_of(engine, 127, 30).a.tolist())
    page.get_by_role("button", name="Choose for A").click()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert page.evaluate("document.activeElement.id") == "choose-a"


def test_an_own_image_is_dropped_or_picked(open_page, engine, tmp_path):
    from pivq_jax.data.images import load_image

    page = open_page()
    name = "<img src=x onerror=alert(1)>.png"  # names are shown and never interpreted
    own = image_file(tmp_path)
    image = load_image(own, engine.size)
    drop(page, "#side-b", (name, own.read_bytes()))
    wait_for_name(page, "b", "onerror")
    settle(page)
    assert page.locator("#name-b").text_content() == name and not page.locator("img").count()
    np.testing.assert_array_equal(pixels(page, "image-b"), image)
    pairs = engine.pair(engine.example(0).codes, engine.encode(image))
    page.locator("#slider").focus()
    page.keyboard.press("End")
    assert_shown(page, engine, pairs.b.tolist())

    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Own image for A").click()
    chooser.value.set_files(own)
    wait_for_name(page, "a", "own.png")
    settle(page)
    np.testing.assert_array_equal(pixels(page, "image-a"), image)
    assert page.locator("#slots .slot").count() == 0  # both are the same image now
    assert page.get_by_role("slider").is_disabled()

    other = image_file(tmp_path, "other.jpg", (30, 20))
    drop(page, "body", ("one.png", own.read_bytes()), ("other.jpg", other.read_bytes()))
    wait_for_name(page, "b", "other.jpg")
    assert page.locator("#name-a").text_content() == "one.png"


def test_a_code_is_replaced_by_any_entry(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    slot = by_cost(pairs)[0]
    codes, code = pairs.a.tolist(), int(pairs.a[slot])
    page.get_by_role("button", name=f"Replace {code}", exact=True).click()
    dialog = page.get_by_role("dialog", name=f"Replace code {code}")
    page.wait_for_selector("#entries-list .amount >> nth=11")
    free = [e for e in (pairs.b[slot], *engine.neighbours(code)) if e not in codes]
    free = [int(e) for e in dict.fromkeys(free)]  # the partner, then the nearest
    shown = dialog.locator(".thumb .code").all_text_contents()
    assert [int(text) for text in shown] == free[:12]
    changed = engine.decode(np.array([[*codes[:slot], free[3], *codes[slot + 1 :]]]))[0]
    mean = np.abs(changed.astype(float) - engine.decode(np.array([codes]))[0]).mean()
    amount = re.search(r"changes ([\d.]+)", dialog.locator(".thumb").nth(3).text_content())
    assert float(amount[1]) == pytest.approx(mean, abs=0.1)
    dialog.get_by_role("button", name="More").click()
    page.wait_for_selector(f"#entries-list .amount >> nth={len(free) - 1}")
    assert dialog.get_by_role("button", name="More").is_disabled()
    dialog.locator(".thumb").nth(3).click()
    codes[slot] = free[3]
    assert_shown(page, engine, codes)
    assert f"By hand: {free[3]}" in page.locator("#slots .slot").first.text_content()
    assert f"Code {free[3]}:" in page.locator("#about-code").text_content()

    # An entry by its number; one that the image has is refused, and the dialog stays.
    page.get_by_role("button", name=f"Replace {free[3]}", exact=True).click()
    taken = codes[by_cost(pairs)[1]]
    page.get_by_label("Any entry").fill(str(taken))
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text(f"Code {taken} is in the image already").wait_for()
    page.get_by_label("Any entry").fill(str(free[5]))
    page.get_by_role("button", name="Put it in").click()
    codes[slot] = free[5]
    assert_shown(page, engine, codes)

    # A click brings the code of A back; a code that both images have can be replaced, too.
    page.locator("#slots .pair").first.click()
    codes[slot] = code
    assert_shown(page, engine, codes)
    if page.locator("#common .slot").count():
        page.locator("#common .pair").first.click()
        page.wait_for_selector("#entries-list .amount >> nth=0")
        page.locator("#entries-list .thumb").first.click()
        settle(page)
        assert len(set(codes_of(page)) - set(codes)) == 1


def test_a_code_put_in_by_hand_is_in_the_way_of_itself(open_page, engine):
    page = open_page()
    pairs = pairs_of(engine)
    first, second = by_cost(pairs)[:2]
    page.locator("#slots .replace").first.click()
    page.get_by_label("Any entry").fill(str(pairs.b[second]))
    page.keyboard.press("Enter")
    settle(page)
    page.locator("#slots .pair").nth(1).click()  # would bring the same code in again
    page.get_by_role("alert").get_by_text("take it out there first").wait_for()
    codes = pairs.a.tolist()
    codes[first] = int(pairs.b[second])
    assert_shown(page, engine, codes)
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")  # the interpolation takes it out
    codes = pairs.a.tolist()
    codes[first] = int(pairs.b[first])
    assert_shown(page, engine, codes)


def test_a_new_face_is_shown_beside_the_training_image_most_like_it(open_page, engine):
    page = open_page()
    page.get_by_role("button", name="New face").click()
    wait_for_name(page, "a", "training")
    settle(page)
    names = [page.locator(f"#name-{side}").text_content() for side in "ab"]
    indices = [int(name.removeprefix("training image ")) for name in names]
    pairs = engine.pair(*engine.pool.codes[indices])
    codes = np.array(codes_of(page))
    assert np.all((codes == pairs.a) | (codes == pairs.b))
    differs = pairs.a != pairs.b
    exchanged = (codes != pairs.a).sum()
    assert abs(exchanged - round(differs.sum() / 2)) <= round(differs.sum() / 8)
    # Images of 16 x 16 pixels are compared as they are.
    training = np.stack([engine.dataset.train[i]["image"] for i in range(64)]).astype(int)
    changes = pixels(page) - training
    nearest = int((changes**2).sum((1, 2, 3)).argmin())
    assert page.locator("#name-copy").text_content() == f"training image {nearest}"
    about = page.locator("#about-copy").text_content()
    shared = len({*codes.tolist()} & {*engine.pool.codes[nearest].tolist()})
    assert about.startswith(f"{shared} of 8 codes in common. Pixels differ by ")
    amount = re.search(r"by ([\d.]+) of 255", about)
    assert float(amount[1]) == pytest.approx(np.abs(changes[nearest]).mean(), abs=0.1)
    assert "64 of 64 were searched" in about


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

    from pivq_jax import codec

    assert codec.read(tmp_path / "mine.pivq", engine.model).codes.tolist() == [sorted(codes)]
    other = open_page()
    with other.expect_file_chooser() as chooser:
        other.get_by_role("button", name="Open codes").click()
    chooser.value.set_files(tmp_path / "mine.pivq")
    wait_for_name(other, "a", "mine.pivq")
    assert_shown(other, engine, sorted(codes))
    drop(other, "body", ("dropped.pivq", (tmp_path / "mine.pivq").read_bytes()))
    wait_for_name(other, "a", "dropped.pivq")
    np.testing.assert_array_equal(pixels(other, "image-a"), pixels(page))


def test_a_link_holds_the_state(open_page, engine):
    page = open_page()
    page.get_by_role("button", name="New face").click()
    wait_for_name(page, "a", "training")
    settle(page)
    if page.locator("#slots .pair").count():  # two images of noise may have the same codes
        page.locator("#slots .pair").first.click()
        settle(page)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied").wait_for(state="attached")
    link = page.evaluate("navigator.clipboard.readText()")
    fragment = "#" + urlsplit(link).fragment
    assert parse_qs(fragment[1:])["m"] == [engine.describe()["id"]]
    other = open_page(fragment)
    assert_shown(other, engine, codes_of(page))
    for side in "ab":
        names = {p.locator(f"#name-{side}").text_content() for p in (page, other)}
        assert len(names) == 1
    # Opened in a page that is open.
    first = open_page()
    first.evaluate("(fragment) => { location.hash = fragment; }", fragment)
    wait_for_name(first, "a", "training")
    assert_shown(first, engine, codes_of(page))
    first.get_by_role("button", name="Undo").click()
    assert_shown(first, engine, pairs_of(engine).a.tolist())


def test_the_image_follows_a_drag_without_falling_behind(open_page, engine):
    """However fast the slider moves, requests do not pile up and the last state is shown."""
    page = open_page()
    pairs = pairs_of(engine)
    count = len(by_cost(pairs))
    asked: list[float] = []
    page.on("request", lambda r: asked.append(time.time()) if r.url.endswith("decode") else None)
    page.evaluate(
        """(count) => {
        const slider = document.getElementById("slider");
        for (let pull = 0; pull < 100; pull++) {
            slider.value = pull % (count + 1);
            slider.dispatchEvent(new Event("input"));
        }
        slider.value = count;
        slider.dispatchEvent(new Event("input"));
        slider.dispatchEvent(new Event("change"));
    }""",
        count,
    )
    assert_shown(page, engine, pairs.b.tolist())
    assert 1 <= len(asked) <= 3 + 3  # the effects of at most eight exchanges follow


def test_files_that_are_no_images_are_refused_with_a_reason(open_page, tmp_path):
    page = open_page()
    before, alert = codes_of(page), page.get_by_role("alert")
    for content in (b"no image", b"GIF89a", b"\x89PNG\r\n\x1a\n and nothing of use", b""):
        drop(page, "#side-a", ("no.png", content))
        alert.get_by_text(re.compile(r"no\.png: .*no PNG.*WebP", re.I)).wait_for()
        page.get_by_role("button", name="Close").click()
        assert alert.count() == 0
    drop(page, "#side-a", ("no.pivq", b"no codes"))
    alert.get_by_text("not a file of codes").wait_for()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Own image for A").click()
    (tmp_path / "large.png").write_bytes(bytes(2**25 + 1))
    chooser.value.set_files(tmp_path / "large.png")
    alert.get_by_text("more than 32 MB").wait_for()
    assert codes_of(page) == before and page.get_by_role("button", name="Undo").is_disabled()
