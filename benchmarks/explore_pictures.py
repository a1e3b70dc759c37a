"""Makes the pictures of the explorer in the documentation.

    python -m benchmarks.explore_pictures --pretrained=toon_faces
    python -m benchmarks.explore_pictures --workdir=runs/toon_faces

Serves the page of a trained model as `--mode=explore` does, and photographs it in Debian's
chromium, driven by playwright (requirements-test.txt): explorer_wide.png, explorer_replace.png,
explorer_dark.png, in which a factor is changed if there are any, and explorer_narrow.png. --output
is where they are written, docs/pictures by default.
"""

import argparse
import base64
import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import add_model, chromium, parser_for

WIDE, NARROW = (1_600, 1_000), (400, 860)
PAIRS = 8  # of test images, of which one is shown


@contextlib.contextmanager
def serving(options: argparse.Namespace) -> Iterator[str]:
    """Serves the explorer of the model that the options name, in a process of its own.

    Yields the address of the page, once it answers; raises SystemExit if it cannot be served.
    """
    model = f"--workdir={options.workdir}"
    if options.pretrained:
        model = f"--pretrained={options.pretrained}"
    command = [sys.executable, "-m", "pivq_jax.main", "--mode=explore", model]
    server = subprocess.Popen([*command, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        found = None
        while found is None and (line := server.stdout.readline()):
            found = re.search(r"http://\S+", line)
        if found is None:
            raise SystemExit(f"{model} cannot be explored: see the lines above")
        yield found[0]
    finally:
        server.terminate()
        server.communicate()


def ask(address: str, name: str, **body: Any) -> Any:
    """Returns what the server answers to a request of the page."""
    content = None if name == "model" else json.dumps(body).encode()  # GET, or else POST
    with urllib.request.urlopen(f"{address}api/{name}", content) as response:
        return json.load(response)


def decoded(address: str, codes: np.ndarray) -> np.ndarray:
    """The pixels of an image, float32 [...] in grey levels."""
    (image,) = ask(address, "decode", sets=[codes.tolist()])
    return np.frombuffer(base64.b64decode(image), np.uint8).astype(np.float32)


def telling_edit(address: str, codes: np.ndarray) -> tuple[str, str]:
    """Finds the edit that changes an image, codes int [N], most for each code that it replaces.

    Returns the name of the factor, and that of its new value.
    """
    image, best, found = decoded(address, codes), 0.0, ("", "")
    for factor, known in enumerate(ask(address, "model")["factors"]):
        for value, name in enumerate(known["values"]):
            wanted = {"factor": factor, "value": value}
            edited = np.array(ask(address, "edit", codes=codes.tolist(), **wanted))
            replaced = max(1, np.count_nonzero(edited != codes))
            change = np.abs(decoded(address, edited) - image).mean() / replaced
            if change > best:
                best, found = change, (known["name"], name)
    return found


def telling_state(address: str) -> tuple[str, int, int]:
    """Finds a state to show, among the interpolations of the first pairs of test images.

    Returns the fragment of the link to two images; the number of exchanges at which the image is
    far from both, and nearer to a training image, as a face without faults is; and the column of
    the pair of which one more exchange changes the image most.
    """
    decode = partial(decoded, address)
    model, best, found = ask(address, "model")["id"], -np.inf, ("", 0, 0)
    for example in range(0, 2 * PAIRS, 2):
        ends = [ask(address, "example", index=example + side)["codes"] for side in (0, 1)]
        pairs = {key: np.array(x) for key, x in ask(address, "pair", a=ends[0], b=ends[1]).items()}
        a, b = pairs["a"], pairs["b"]
        order = [slot for slot in np.argsort(pairs["cost"], kind="stable") if a[slot] != b[slot]]
        first, last = decode(a), decode(b)
        for count in range(len(order) + 1):
            codes = np.where(np.isin(np.arange(len(a)), order[:count]), b, a)
            image = decode(codes)
            apart = min(np.abs(image - end).mean() for end in (first, last))
            score = apart - ask(address, "nearest", codes=codes.tolist())["difference"]
            if score > best:
                turned = [np.where(np.arange(len(a)) == n, a + b - codes, codes) for n in order]
                changes = [np.abs(decode(other) - image).mean() for other in turned]
                start = ".".join(map(str, a))
                fragment = f"#m={model}&a=e{example}&b=e{example + 1}&c={start}"
                best, found = score, (fragment, count, int(np.argmax(changes)))
    return found


def photograph(browser: Any, address: str, output: Path) -> None:
    """Writes all pictures."""
    start, exchanged, column = telling_state(address)

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
            "() => ['result', 'copy'].every("
            "(id) => document.getElementById(id).getAttribute('aria-busy') === 'false')"
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
    page = opened(WIDE, "dark", start)
    if page.locator(".factor").count():
        codes = np.array(start.split("&c=")[1].split("."), int)
        name, value = telling_edit(address, codes)
        page.get_by_label(name, exact=True).select_option(label=value)
        settle(page)
    keep(page, "dark")
    keep(opened(NARROW, "light", fragment), "narrow", whole=False)


def main() -> None:
    """Serves and photographs."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    with chromium() as browser, serving(options) as address:
        photograph(browser, address, options.output)


if __name__ == "__main__":
    main()
