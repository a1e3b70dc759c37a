"""Measures how soon the explorer without a server does what the page asks for.

    python -m docs.build_explorer --workdir=runs/toon_faces
    python -m benchmarks.explore_browser [--folder=docs/_build/explorer] [--times=50]

Opens the folder in Debian's chromium, driven by playwright (requirements-test.txt), and clicks on
pairs of codes. "click to image" is the time from a click until the page is no longer busy, when its
canvas has the image, and the next animation frame, which shows it, has begun. That is all that the
page does for a click; up to 17 ms of it are waiting for the frame, at 60 frames a second. Half a
second between clicks lets the page settle, so that none includes the search of the nearest image.

Then asks the backend for what benchmarks/explore.py asks a server for, and for the codes of an
image from a file. Prints the median and the largest time in milliseconds, after one of each kind,
and the time until the page is ready.
"""

import contextlib
import functools
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import chromium, parser_for

# Returns the times from clicks to their images in milliseconds.
CLICK = """
async (times) => {
  const result = document.getElementById("result");
  const pairs = document.querySelectorAll("#slots .pair");
  const taken = [];
  for (let i = 0; i <= times; i++) {
    const shown = new Promise((resolve) => {
      const observer = new MutationObserver(() => {
        if (result.getAttribute("aria-busy") !== "false") return;
        observer.disconnect();
        requestAnimationFrame(resolve);
      });
      observer.observe(result, { attributeFilter: ["aria-busy"] });
    });
    const began = performance.now();
    pairs[i % pairs.length].click();
    await shown;
    taken.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  return taken.slice(1);
}
"""

# Returns the times of each kind of call of the backend in milliseconds.
MEASURE = """
async (times) => {
  const { BrowserBackend } = await import("/browser.js");
  const backend = new BrowserBackend();
  const model = await backend.open(() => {});
  const [first, second] = [await backend.example(0), await backend.example(1)];
  const pairs = await backend.pair(first.codes, second.codes);
  const differing = pairs.a.flatMap((code, n) => (code === pairs.b[n] ? [] : [n]));
  const codes = [...pairs.a];
  const any = (list) => list[Math.floor(Math.random() * list.length)];
  const canvas = new OffscreenCanvas(300, 200);
  canvas.getContext("2d").fillRect(50, 50, 50, 50);
  const own = await canvas.convertToBlob();
  const kinds = {
    "exchange": () => {
      const slot = any(differing);
      codes[slot] = (codes[slot] === pairs.a[slot] ? pairs.b : pairs.a)[slot];
      return backend.decode([codes]);
    },
    "another value": async () => {
      const factor = Math.floor(Math.random() * model.factors.length);
      const value = Math.floor(Math.random() * model.factors[factor].values.length);
      const edited = await backend.edit(codes, factor, value);
      await backend.readFactors(edited);
      return backend.decode([edited]);
    },
    "twelve changes": async () => {
      const slot = any([...codes.keys()]);
      const near = (await backend.neighbours(codes[slot])).filter((code) => !codes.includes(code));
      const sets = near.slice(0, 12).map((code) => codes.with(slot, code));
      for (let start = 0; start < sets.length; start += model.batch) {
        await backend.decode(sets.slice(start, start + model.batch));
      }
    },
    "nearest image": () => backend.nearest(codes),
    "new face": () => backend.recombine(),
    "own image": () => backend.encode(own, "own.png"),
  };
  if (!model.factors.length) delete kinds["another value"];
  const taken = {};
  for (const [name, act] of Object.entries(kinds)) {
    await act();
    taken[name] = [];
    for (let i = 0; i < times; i++) {
      const began = performance.now();
      await act();
      taken[name].push(performance.now() - began);
    }
  }
  return { title: model.title, taken };
}
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Does nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves the files of a folder on localhost; yields its address."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def main() -> None:
    """Serves, opens, measures and prints."""
    parser = parser_for(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/_build/explorer"))
    parser.add_argument("--times", type=int, default=50)
    options = parser.parse_args()
    if not (options.folder / "explorer.json").is_file():
        raise SystemExit(f"{options.folder} is no explorer: build it with docs.build_explorer")
    with chromium() as browser, serving(options.folder) as address:
        page = browser.new_page()
        page.set_default_timeout(600_000)
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("#explorer:not([hidden])")
        ready = 1e3 * (time.perf_counter() - began)
        page.wait_for_function("document.getElementById('name-copy').textContent")  # at rest
        clicks = page.evaluate(CLICK, options.times)
        found = page.evaluate(MEASURE, options.times)
        print(f"{found['title']}; ready after {ready:.0f} ms")
        print(f"{'':<16}{'median ms':>11}{'largest ms':>12}")
        for name, times in {"click to image": clicks, **found["taken"]}.items():
            print(f"{name:<16}{np.median(times):11.1f}{max(times):12.1f}", flush=True)


if __name__ == "__main__":
    main()
