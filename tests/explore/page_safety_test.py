"""The page in a real browser: what is refused, and what a person is told then."""

import json
import shutil
from urllib.parse import urlsplit

import pytest

from tests.explore.browser import assert_shown, codes_of, pairs_of, served, served_files, settle

pytestmark = pytest.mark.slow


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


def test_a_link_that_opens_slowly_does_not_undo_what_is_done_meanwhile(open_page):
    page, held = open_page(), []
    pairs = page.locator("#slots .pair")
    pairs.first.click()
    settle(page)
    link = page.evaluate("location.hash")
    page.get_by_role("button", name="Undo").click()
    settle(page)
    page.route("**/api/example", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/api/example"):
        page.evaluate("(link) => void (location.hash = link)", link)
    pairs.last.click()
    wanted = codes_of(page)
    with page.expect_response("**/api/pair"):
        held[0].continue_()
    page.wait_for_timeout(100)  # for what the page does with the answer
    settle(page)
    assert codes_of(page) == wanted


def test_a_server_that_is_gone_is_told(browser, engine):
    page = browser.new_page()
    with served(engine) as address:
        page.goto(address)
        settle(page)
    page.locator("#slots .pair").first.click()
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    select = page.get_by_label("shade")
    select.select_option(label="light")
    page.wait_for_function("(select) => select.selectedIndex === 0", arg=select.element_handle())
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    page.close()


def test_pages_of_other_sites_get_nothing(browser, address, tmp_path):
    """A page at another origin, and one whose name leads here, as after DNS rebinding."""
    page = browser.new_page()
    with served_files(tmp_path) as other:
        page.goto(other.replace("127.0.0.1", "localhost"))
        for mode in ("cors", "no-cors"):
            kind = page.evaluate(
                """([address, mode]) => fetch(address + "api/model", { mode })
                .then((answer) => answer.type + answer.status, () => "refused")""",
                [address, mode],
            )
            assert kind in ("refused", "opaque0")
        page.close()
    rebound = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
    )
    answer = rebound.new_page().goto(f"http://evil.example:{urlsplit(address).port}/")
    assert answer.status == 403 and json.loads(answer.text()).keys() == {"error"}
    rebound.close()
