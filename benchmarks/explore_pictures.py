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

from benchmarks.common import add_model, chromium, open_model, parser_for
from pivq_jax.explore.engine import Engine
from pivq_jax.training.build import dataset_from_config
from tests.explore.browser import served, settle

WIDE, NARROW = (1_600, 1_000), (400, 860)


def photograph(browser: Any, engine: Engine, address: str, output: Path) -> None:
    """Writes all pictures."""

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

    page = opened(WIDE, "light")
    slider = page.locator("#slider")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    slider.blur()
    keep(page, "wide")
    fragment = page.evaluate("location.hash")
    page.locator("#slots .replace").first.click()
    page.wait_for_selector("#entries-list .amount >> nth=11")
    keep(page, "replace", whole=False)
    page = opened(WIDE, "dark")
    if factors := len(engine.describe()["factors"]):
        page.locator(f"#factor-{factors - 1}").select_option(index=1)
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
