"""Makes the pictures of the explorer in the documentation.

    python -m benchmarks.explore_pictures --pretrained=toon_faces
    python -m benchmarks.explore_pictures --workdir=runs/toon_faces

Serves the page of a trained model as the tests do, and photographs it in Debian's
chromium, driven by playwright (requirements-test.txt): explorer_wide.png, explorer_replace.png,
explorer_dark.png, in which a factor is changed if there are any, and explorer_narrow.png. --output
is where they are written, docs/pictures by default.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import add_model, chromium, open_model, parser_for
from pivq_jax.explore.engine import Engine
from pivq_jax.training.build import dataset_from_config
from tests.explore.browser import served, settle

WIDE, NARROW = (1_600, 1_000), (400, 860)
PAIRS = 8  # of test images, of which one is shown


def decoded(engine: Engine, codes: np.ndarray) -> np.ndarray:
    """The pixels of an image, float32 [S, S, 3] in grey levels."""
    return engine.decode(codes[None])[0].astype(np.float32)


def telling_edit(engine: Engine, codes: np.ndarray) -> tuple[str, str]:
    """Finds the edit that changes an image, codes int [N], most for each code that it replaces.

    Returns the name of the factor, and that of its new value.
    """
    image, best, found = decoded(engine, codes), 0.0, ("", "")
    for factor, known in enumerate(engine.describe()["factors"]):
        for value, name in enumerate(known["values"]):
            edited = engine.edit(codes, factor, value)
            replaced = max(1, np.count_nonzero(edited != codes))
            change = np.abs(decoded(engine, edited) - image).mean() / replaced
            if change > best:
                best, found = change, (known["name"], name)
    return found


def telling_state(engine: Engine) -> tuple[str, int, int]:
    """Finds a state to show, among the interpolations of the first pairs of test images.

    Returns the fragment of the link to two images; the number of exchanges at which the image is
    far from both, and nearer to a training image, as a face without faults is; and the column of
    the pair of which one more exchange changes the image most.
    """
    model, best, found = engine.describe()["id"], -np.inf, ("", 0, 0)
    for example in range(0, 2 * PAIRS, 2):
        a, b, cost = engine.pair(*(engine.example(example + side).codes for side in (0, 1)))
        order = [slot for slot in np.argsort(cost, kind="stable") if a[slot] != b[slot]]
        first, last = decoded(engine, a), decoded(engine, b)
        for count in range(len(order) + 1):
            codes = np.where(np.isin(np.arange(len(a)), order[:count]), b, a)
            image = decoded(engine, codes)
            apart = min(np.abs(image - end).mean() for end in (first, last))
            score = apart - engine.nearest(codes).difference
            if score > best:
                turned = [np.where(np.arange(len(a)) == n, a + b - codes, codes) for n in order]
                changes = [np.abs(decoded(engine, other) - image).mean() for other in turned]
                start = ".".join(map(str, a))
                fragment = f"#m={model}&a=e{example}&b=e{example + 1}&c={start}"
                best, found = score, (fragment, count, int(np.argmax(changes)))
    return found


def photograph(browser: Any, engine: Engine, address: str, output: Path) -> None:
    """Writes all pictures."""
    start, exchanged, column = telling_state(engine)

    def opened(size: tuple[int, int], scheme: str, fragment: str = "") -> Any:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        page.goto(address + fragment)
        page.wait_for_selector("#slots .slot")
        settle(page)
        return page

    def keep(page: Any, name: str, whole: bool = True) -> None:
        page.wait_for_timeout(1_000)  # after an edit, the page is not busy at once
        settle(page)
        page.screenshot(path=output / f"explorer_{name}.png", full_page=whole)
        print(f"wrote {output / f'explorer_{name}.png'}", flush=True)

    page = opened(WIDE, "light", start)
    slider = page.locator("#slider")
    slider.focus()
    for _ in range(exchanged):
        page.keyboard.press("ArrowRight")
    slider.blur()
    keep(page, "wide")
    fragment = page.evaluate("location.hash")
    page.locator("#slots .replace").nth(column).click()
    page.wait_for_selector("#entries-list .amount >> nth=11")
    keep(page, "replace", whole=False)
    page = opened(WIDE, "dark", start)
    if page.locator(".factor").count():
        codes = np.array(start.split("&c=")[1].split("."), int)
        name, value = telling_edit(engine, codes)
        page.get_by_label(name, exact=True).select_option(label=value)
    keep(page, "dark")
    keep(opened(NARROW, "light", fragment), "narrow", whole=False)


def main() -> None:
    """Serves and photographs."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    model = open_model(options)
    engine = Engine(model, dataset_from_config(model.config))
    with chromium() as browser, served(engine) as address:
        photograph(browser, engine, address, options.output)


if __name__ == "__main__":
    main()
