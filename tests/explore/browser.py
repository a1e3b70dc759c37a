"""What a test sees and does on the page."""

import base64
import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((400, 850), (1600, 1000))
CODES = """[...document.querySelectorAll(".slot")]
    .sort((one, other) => one.dataset.slot - other.dataset.slot)
    .map((slot) => Number(slot.dataset.code))"""
SCHEMES = ("light", "dark")


@contextlib.contextmanager
def served(engine: Any) -> Iterator[str]:
    """Serves the page in a thread; its address."""
    from pivq_jax.explore.server import listen, make_server, url

    with listen("127.0.0.1", 0) as listener:
        server = make_server(engine, "127.0.0.1")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield url(listener, "127.0.0.1")
        finally:
            server.should_exit = True
            thread.join()


def settle(page: Any) -> None:
    """Waits until the image, effects, the nearest image and the link are those of the state."""
    page.wait_for_function(
        f"""() => ["result", "codes", "copy"].every(
            (id) => document.getElementById(id).getAttribute("aria-busy") === "false")
        && location.hash.includes("c=" + {CODES}.join("."))"""
    )


def wait_for_name(page: Any, side: str, name: str) -> None:
    """Waits until the image of a side has a name with this text in it."""
    page.locator(f"#name-{side}", has_text=name).wait_for()


def codes_of(page: Any) -> list[int]:
    """The codes in the order of slots, as the columns show them."""
    return page.evaluate(CODES)


def pixels(page: Any, canvas: str = "image") -> np.ndarray:
    """The pixels of a canvas, uint8 [S, S, 3]."""
    data = page.evaluate("(id) => document.getElementById(id).toDataURL()", canvas)
    image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    return np.asarray(image.convert("RGB"))


def assert_shown(page: Any, engine: Any, codes: list[int]) -> None:
    """These codes are shown, and their image."""
    settle(page)
    assert codes_of(page) == codes
    difference = np.abs(pixels(page) - engine.decode(np.array([codes]))[0].astype(int))
    # Floats differ by less than 1e-3 around a half.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def pairs_of(engine: Any, first: int = 0, second: int = 1) -> Any:
    """The pairs of two test images."""
    return engine.pair(engine.example(first).codes, engine.example(second).codes)


def by_cost(pairs: Any) -> list[int]:
    """The slots in the order in which the interpolation exchanges them."""
    order = np.argsort(pairs.cost, kind="stable")
    return [int(slot) for slot in order if pairs.a[slot] != pairs.b[slot]]


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
