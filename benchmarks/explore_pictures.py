"""Makes the pictures of the explorer in the documentation.

    python -m benchmarks.explore_pictures [--workdir=runs/toon_faces] [--output=docs/pictures]

Serves the page of a trained run as `--mode=explore` does, and photographs it in Debian's chromium,
driven by playwright (requirements-test.txt): explorer_wide.png, explorer_dark.png,
explorer_replace.png and explorer_narrow.png.
"""

import argparse
import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.explore import Client, serving

WIDE, NARROW = (1_600, 1_000), (400, 860)
PAIRS = 8  # of test images, of which one is shown


def telling_state(client: Client) -> tuple[str, int, int]:
    """Finds a state to show, among the interpolations of the first pairs of test images.

    Returns:
        the fragment of the link to two images; the number of exchanges at which the image is far
        from both, and nearer to a training image, as a face without faults is; and the column of
        the pair of which one more exchange changes the image most.
    """

    def decode(codes: np.ndarray) -> np.ndarray:
        (image,) = client.ask("decode", sets=[codes.tolist()])
        return np.frombuffer(base64.b64decode(image), np.uint8).astype(np.float32)

    model, best, found = client.ask("model")["id"], -np.inf, ("", 0, 0)
    for example in range(0, 2 * PAIRS, 2):
        ends = [client.ask("example", index=example + side)["codes"] for side in (0, 1)]
        pairs = {key: np.array(x) for key, x in client.ask("pair", a=ends[0], b=ends[1]).items()}
        a, b = pairs["a"], pairs["b"]
        order = [slot for slot in np.argsort(pairs["cost"], kind="stable") if a[slot] != b[slot]]
        first, last = decode(a), decode(b)
        for count in range(len(order) + 1):
            codes = np.where(np.isin(np.arange(len(a)), order[:count]), b, a)
            image = decode(codes)
            apart = min(np.abs(image - end).mean() for end in (first, last))
            score = apart - client.ask("nearest", codes=codes.tolist())["difference"]
            if score > best:
                turned = [np.where(np.arange(len(a)) == n, a + b - codes, codes) for n in order]
                changes = [np.abs(decode(other) - image).mean() for other in turned]
                start = ".".join(map(str, a))
                fragment = f"#m={model}&a=e{example}&b=e{example + 1}&c={start}"
                best, found = score, (fragment, count, int(np.argmax(changes)))
    return found


def photograph(browser: Any, address: str, output: Path) -> None:
    """Writes all pictures."""
    start, exchanged, column = telling_state(Client(address))

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

    page = opened(WIDE, "light", start)
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
    keep(opened(WIDE, "dark", fragment), "dark")
    keep(opened(NARROW, "light", fragment), "narrow", whole=False)


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
