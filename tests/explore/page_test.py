"""The page in a real browser: all that a person does, by mouse and by keyboard."""

import io
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import uvicorn
from PIL import Image

from pivq_jax.explore.server import listen, make_app, url

pytestmark = pytest.mark.slow
SIZES = ((400, 850), (1600, 1000))
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def address(engine: Any) -> Iterator[str]:
    """Where the page is served."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(engine, "127.0.0.1"), lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield url(listener, "127.0.0.1")
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium; where it is missing, a skip, but a failure for .ci/run."""
    program = shutil.which("chromium")
    if not program and os.environ.get("CI") == "true":
        pytest.fail("chromium is not installed: apt-get install chromium")
    if not program:
        pytest.skip("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page and waits for its image; nothing may be left in the console."""
    contexts, faults = [], []

    def opened(
        fragment: str = "", size: tuple[int, int] = SIZES[1], scheme: str = SCHEMES[0]
    ) -> Any:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((address, "blob:", "data:")) or faults.append(request.url)
            ),
        )
        page.goto(address + fragment)
        page.wait_for_selector("#explorer")
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    expected = [text for text in faults if "the server responded with a status of 4" in text]
    assert faults == expected


def settle(page: Any) -> None:
    """Waits until the image, its neighbour and the link are those of the state."""
    page.wait_for_function(
        """() => document.getElementById("result").getAttribute("aria-busy") === "false"
        && document.getElementById("name-copy").textContent
        && location.hash.includes("c=" + [...document.querySelectorAll(".slot")]
            .sort((one, other) => one.dataset.slot - other.dataset.slot)
            .map((slot) => slot.dataset.code).join("."))"""
    )


def codes_of(page: Any) -> list[int]:
    """The codes in the order of slots, as the columns show them."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".slot")]
        .sort((one, other) => one.dataset.slot - other.dataset.slot)
        .map((slot) => Number(slot.dataset.code))"""
    )


def pixels(page: Any, canvas: str = "image") -> np.ndarray:
    """The pixels of a canvas, uint8 [S, S, 3]."""
    values = page.evaluate(
        """(id) => {
        const canvas = document.getElementById(id);
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [...data];
    }""",
        canvas,
    )
    side = int((len(values) / 4) ** 0.5)
    return np.array(values, np.uint8).reshape(side, side, 4)[..., :3]


def assert_shown(page: Any, engine: Any, codes: list[int]) -> None:
    """These codes are shown, and their image."""
    settle(page)
    assert codes_of(page) == codes
    np.testing.assert_array_equal(pixels(page), engine.decode(np.array([codes]))[0])


def pairs_of(engine: Any, first: int = 0, second: int = 1) -> Any:
    """The pairs of two test images."""
    return engine.pair(engine.example(first).codes, engine.example(second).codes)


def by_cost(pairs: Any) -> list[int]:
    """The slots in the order in which the interpolation exchanges them."""
    order = np.argsort(pairs.cost, kind="stable")
    return [int(slot) for slot in order if pairs.a[slot] != pairs.b[slot]]


def image_file(folder: Path, name: str = "own.png", size: tuple[int, int] = (50, 40)) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    return folder / name


def drop(page: Any, target: str, *files: tuple[str, bytes]) -> None:
    """Drops files onto an element."""
    transfer = page.evaluate_handle(
        """(files) => {
        const transfer = new DataTransfer();
        for (const [name, bytes] of files) {
            transfer.items.add(new File([new Uint8Array(bytes)], name));
        }
        return transfer;
    }""",
        [[name, list(content)] for name, content in files],
    )
    page.dispatch_event(target, "dragover", {"dataTransfer": transfer})
    assert page.locator("#drop").is_visible()
    page.dispatch_event(target, "drop", {"dataTransfer": transfer})
    assert page.locator("#drop").is_hidden()


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
    assert re.search(rf"A: {pairs.a[slot]}\b.*B: {pairs.b[slot]}\b", text)
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
    page.wait_for_function(
        "() => document.getElementById('name-b').textContent === 'test image 30'"
    )
    assert_shown(page, engine, pairs_of(engine, 0, 30).a.tolist())
    np.testing.assert_array_equal(pixels(page, "image-b"), engine.dataset.test[30]["image"])
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
    page.wait_for_function(
        "() => document.getElementById('name-b').textContent.includes('onerror')"
    )
    settle(page)
    assert page.locator("#name-b").text_content() == name and not page.locator("img").count()
    np.testing.assert_array_equal(pixels(page, "image-b"), image)
    pairs = engine.pair(engine.example(0).codes, engine.encode(image)[0])
    page.locator("#slider").focus()
    page.keyboard.press("End")
    assert_shown(page, engine, pairs.b.tolist())

    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Own image for A").click()
    chooser.value.set_files(own)
    page.wait_for_function("() => document.getElementById('name-a').textContent === 'own.png'")
    settle(page)
    np.testing.assert_array_equal(pixels(page, "image-a"), image)
    assert page.locator("#slots .slot").count() == 0  # both are the same image now
    assert page.get_by_role("slider").is_disabled()

    other = image_file(tmp_path, "other.jpg", (20, 30))
    drop(page, "body", ("one.png", own.read_bytes()), ("other.jpg", other.read_bytes()))
    page.wait_for_function("() => document.getElementById('name-b').textContent === 'other.jpg'")
    assert page.locator("#name-a").text_content() == "one.png"


def test_files_that_are_no_images_are_refused_with_a_reason(open_page, tmp_path):
    page = open_page()
    before, alert = codes_of(page), page.get_by_role("alert")
    drop(page, "#side-a", ("no.png", b"no image"))
    alert.get_by_text("no PNG or JPEG").wait_for()
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
    assert f"changes {mean:.1f}" in dialog.locator(".thumb").nth(3).text_content()
    dialog.get_by_role("button", name="More").click()
    page.wait_for_selector(f"#entries-list .amount >> nth={len(free) - 1}")
    assert dialog.get_by_role("button", name="More").is_disabled()
    dialog.locator(".thumb").nth(3).click()
    codes[slot] = free[3]
    assert_shown(page, engine, codes)
    assert f"By hand: {free[3]}" in page.locator("#slots .slot").first.text_content()

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
    page.get_by_role("alert").get_by_text("put there by hand").wait_for()
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
    page.wait_for_function(
        "() => document.getElementById('name-a').textContent.startsWith('training')"
    )
    settle(page)
    names = [page.locator(f"#name-{side}").text_content() for side in "ab"]
    indices = [int(name.removeprefix("training image ")) for name in names]
    pairs = engine.pair(*engine._pool.codes[indices])
    codes = np.array(codes_of(page))
    assert np.all((codes == pairs.a) | (codes == pairs.b))
    differs = pairs.a != pairs.b
    assert (codes != pairs.a).sum() == round(differs.sum() / 2)
    nearest = engine.nearest(codes)
    assert page.locator("#name-copy").text_content() == nearest.picture.name
    about = page.locator("#about-copy").text_content()
    shared = len({*codes.tolist()} & {*nearest.picture.codes.tolist()})
    assert about.startswith(f"{shared} of 8 codes in common. Pixels differ by ")
    assert f"{nearest.difference:.1f} of 255" in about and "512 were searched" in about


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
    other.wait_for_function("() => document.getElementById('name-a').textContent === 'mine.pivq'")
    assert_shown(other, engine, sorted(codes))
    drop(other, "body", ("dropped.pivq", (tmp_path / "mine.pivq").read_bytes()))
    other.wait_for_function(
        "() => document.getElementById('name-a').textContent === 'dropped.pivq'"
    )
    np.testing.assert_array_equal(pixels(other, "image-a"), pixels(page))


def test_a_link_holds_the_state(open_page, engine):
    page = open_page()
    page.get_by_role("button", name="New face").click()
    page.wait_for_function(
        "() => document.getElementById('name-a').textContent.startsWith('training')"
    )
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
    first.wait_for_function(
        "() => document.getElementById('name-a').textContent.startsWith('training')"
    )
    assert_shown(first, engine, codes_of(page))
    first.get_by_role("button", name="Undo").click()
    assert_shown(first, engine, pairs_of(engine).a.tolist())


def test_links_that_do_not_fit_are_refused_with_a_reason(open_page, engine):
    own = engine.describe()["id"]
    damaged = [
        ("#m=other&a=e0&b=e1&c=1", "another model"),
        (f"#m={own}&a=e0&b=e1&c=1.2", "damaged"),
        (f"#m={own}&a=e0&b=e1&c=1.1.2.3.4.5.6.7", "damaged"),
        (f"#m={own}&a=e0&b=e1&c=1.2.3.4.5.6.7.99", "damaged"),
        (f"#m={own}&a=e99999&b=e1&c=1.2.3.4.5.6.7.8", "no 1 test images"),
        (f"#m={own}&a=<script>&b=e1&c=1.2.3.4.5.6.7.8", "damaged"),
        ("#%%%", "another model"),
    ]
    for fragment, word in damaged:
        page = open_page(fragment)
        page.get_by_role("alert").get_by_text(word).wait_for()
        assert_shown(page, engine, pairs_of(engine).a.tolist())  # as without a link


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
    wanted += ["slider", "choose-b", "file-b", "pair"]
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
    page.wait_for_selector("#examples-list .thumb >> nth=23")
    check("images")


def test_narrow_and_wide_pages_lay_images_out_as_they_should(open_page):
    def boxes(size: tuple[int, int]) -> dict[str, Any]:
        page = open_page(size=size)
        names = ("image-a", "image", "image-b", "image-copy")
        return {name: page.locator(f"#{name}").bounding_box() for name in names}

    narrow, wide = (boxes(size) for size in SIZES)
    assert narrow["image"]["width"] > 0.9 * SIZES[0][0] - 30
    assert narrow["image-a"]["y"] == narrow["image-b"]["y"] > narrow["image"]["y"]
    left = [wide[name]["x"] for name in ("image-a", "image", "image-b", "image-copy")]
    assert left == sorted(left)
    assert wide["image"]["width"] > wide["image-a"]["width"] == wide["image-b"]["width"]
    assert all(box["width"] == pytest.approx(box["height"]) for box in wide.values())


def test_colours_follow_the_scheme(open_page):
    def lightness(scheme: str) -> int:
        page = open_page(scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)))

    assert lightness("light") > 700 and lightness("dark") < 100


def test_a_server_that_is_gone_is_told(browser, engine):
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(engine), lifespan="off", log_level="critical")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    page = browser.new_page()
    page.goto(url(listener, "localhost"))
    settle(page)
    server.should_exit = True
    thread.join()
    listener.close()
    page.locator("#slots .pair").first.click()
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    page.close()


def test_pages_of_other_sites_get_nothing(browser, address):
    """A page at another origin, and one whose name leads here, as after DNS rebinding."""
    port = urlsplit(address).port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        evil = f"http://localhost:{other.getsockname()[1]}/"
        body = b"<!doctype html><title>other</title>"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"

        def answer() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                connection.recv(65_536)
                connection.sendall(head.encode() + body)
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        page = browser.new_page()
        page.goto(evil)
        for mode in ("cors", "no-cors"):
            kind = page.evaluate(
                """([address, mode]) => fetch(address + "api/model", { mode })
                .then((answer) => answer.type + answer.status, () => "refused")""",
                [address, mode],
            )
            assert kind in ("refused", "opaque0")
        page.close()
        other.shutdown(socket.SHUT_RDWR)
    program = browser.browser_type
    rebound = program.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
    )
    page = rebound.new_page()
    answer = page.goto(f"http://evil.example:{port}/")
    assert answer.status == 403 and json.loads(answer.text()).keys() == {"error"}
    rebound.close()


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
    assert 1 <= len(asked) <= 3
