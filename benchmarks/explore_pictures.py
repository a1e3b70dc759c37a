"""Makes the pictures of the explorer in the documentation.

    python -m benchmarks.explore_pictures [--workdir=runs/toon_faces] [--output=docs/pictures]

Serves the page of a trained run as `--mode=explore` does, and photographs it in Debian's chromium,
driven by playwright (requirements-test.txt): explorer_wide.png, explorer_dark.png,
explorer_replace.png, explorer_choose.png and explorer_narrow.png.
"""

import argparse
import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.explore import Client, serving

WIDE, NARROW = (1_600, 1_000), (400, 860)


def telling_state(client: Client) -> tuple[int, int]:
    """Finds the number of exchanges between test images 0 and 1 that makes an image most unlike
    both, and the pair of which a further exchange then changes most, in the order of columns."""

    def decode(codes: np.ndarray) -> np.ndarray:
        (image,) = client.ask("decode", sets=[codes.tolist()])
        return np.frombuffer(base64.b64decode(image), np.uint8).astype(np.float32)

    first, second = (client.ask("example", index=index)["codes"] for index in (0, 1))
    pairs = {name: np.array(x) for name, x in client.ask("pair", a=first, b=second).items()}
    a, b = pairs["a"], pairs["b"]
    order = [slot for slot in np.argsort(pairs["cost"], kind="stable") if a[slot] != b[slot]]
    path = [np.where(np.isin(np.arange(len(a)), order[:n]), b, a) for n in range(len(order) + 1)]
    images = [decode(codes) for codes in path]
    apart = [min(np.abs(image - images[end]).mean() for end in (0, -1)) for image in images]
    codes, image = path[np.argmax(apart)], images[np.argmax(apart)]
    changes = []
    for slot in order:
        changed = codes.copy()
        changed[slot] = a[slot] if codes[slot] == b[slot] else b[slot]
        changes.append(np.abs(decode(changed) - image).mean())
    return int(np.argmax(apart)), int(np.argmax(changes))


def photograph(browser: Any, address: str, output: Path) -> None:
    """Writes all pictures."""
    exchanged, column = telling_state(Client(address))

    def opened(size: tuple[int, int], scheme: str, fragment: str = "") -> Any:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        page.goto(address + fragment)
        page.wait_for_selector("#slots .slot")
        settle(page)
        return page

    def settle(page: Any) -> None:
        # After the image come the link and the training image most like it.
        page.wait_for_timeout(1_000)
        page.wait_for_function(
            "() => document.getElementById('result').getAttribute('aria-busy') === 'false'"
        )

    def keep(page: Any, name: str, whole: bool = True) -> None:
        page.screenshot(path=output / f"explorer_{name}.png", full_page=whole)
        print(f"wrote {output / f'explorer_{name}.png'}", flush=True)

    page = opened(WIDE, "light")
    slider = page.locator("#slider")
    slider.focus()
    for _ in range(exchanged):
        page.keyboard.press("ArrowRight")
    slider.blur()
    settle(page)
    keep(page, "wide")
    fragment = page.evaluate("location.hash")
    page.locator("#slots .replace").nth(column).click()
    page.wait_for_selector("#entries-list .amount >> nth=11")
    keep(page, "replace", whole=False)
    page.keyboard.press("Escape")
    page.locator("#choose-a").click()
    page.wait_for_selector("#examples-list button.thumb >> nth=23")
    keep(page, "choose", whole=False)
    keep(opened(WIDE, "dark", fragment), "dark")
    keep(opened(NARROW, "light", fragment), "narrow")


def main() -> None:
    """Serves and photographs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/toon_faces"))
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    program = shutil.which("chromium")
    if not program:
        raise SystemExit("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with serving(options.workdir) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        photograph(browser, address, options.output)
        browser.close()


if __name__ == "__main__":
    main()
