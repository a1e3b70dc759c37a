"""The page in a real browser."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.explore.browser import SCHEMES, SIZES, served, settle
from tests.explore.node import missing


@pytest.fixture(scope="module")
def address(engine: Any) -> Iterator[str]:
    """Where the page is served."""
    with served(engine) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium; where it is missing, a skip, but a failure for .ci/run."""
    if not shutil.which("chromium"):
        missing("chromium is not installed: apt-get install chromium")
    from benchmarks.common import chromium

    with chromium() as opened:
        yield opened


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
        context.set_default_timeout(180_000)
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
