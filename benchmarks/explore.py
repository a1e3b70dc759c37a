"""Measures how soon the explorer's page gets what it asks for.

    python -m benchmarks.explore --pretrained=toon_faces [--requests=50]
    python -m benchmarks.explore --workdir=runs/toon_faces

Serves the page of a trained model as `--mode=explore` does, and asks for what the page asks for,
over HTTP on localhost: an exchange (the new set is decoded), another value of a factor, the twelve
changes that neighbouring entries would make, the nearest training image, a new face. Prints the
median and the largest time from the request to the last byte of the answer, in milliseconds, after
one request of each kind. A person sees an exchange at once if it takes less than 100.
"""

import argparse
import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common import add_model, parser_for


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


class Client:
    """A connection to the server at an address, kept open like that of a browser."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc)

    def ask(self, name: str, **body: Any) -> Any:
        """Sends a request and returns the answer; raises SystemExit if it is an error."""
        kind = "GET" if name == "model" else "POST"
        self._connection.request(kind, f"/api/{name}", json.dumps(body))
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise SystemExit(f"{name}: {content.decode()}")
        return json.loads(content)


def measure(client: Client, requests: int) -> dict[str, np.ndarray]:
    """Returns the times of each kind of request, milliseconds [requests]."""
    model = client.ask("model")
    factors = model["factors"]
    first, second = (client.ask("example", index=i)["codes"] for i in (0, 1))
    pairs = client.ask("pair", a=first, b=second)
    differing = [n for n, (a, b) in enumerate(zip(pairs["a"], pairs["b"], strict=True)) if a != b]
    rng, codes = np.random.default_rng(0), list(pairs["a"])

    def exchange() -> None:
        slot = rng.choice(differing)
        codes[slot] = pairs["b" if codes[slot] == pairs["a"][slot] else "a"][slot]
        client.ask("decode", sets=[codes])

    def turn() -> None:
        factor = int(rng.integers(len(factors)))
        value = int(rng.integers(len(factors[factor]["values"])))
        edited = client.ask("edit", codes=codes, factor=factor, value=value)
        client.ask("factors/read", codes=edited)
        client.ask("decode", sets=[edited])

    def changes() -> None:
        slot = int(rng.integers(len(codes)))
        near = [entry for entry in client.ask("neighbours", code=codes[slot]) if entry not in codes]
        sets = [[*codes[:slot], entry, *codes[slot + 1 :]] for entry in near[:12]]
        for start in range(0, len(sets), model["batch"]):
            client.ask("decode", sets=sets[start : start + model["batch"]])

    kinds = {
        "exchange": exchange,
        **({"another value": turn} if factors else {}),
        "twelve changes": changes,
        "nearest image": lambda: client.ask("nearest", codes=codes),
        "new face": lambda: client.ask("recombine", seed=int(rng.integers(2**31))),
    }
    times = {}
    for name, act in kinds.items():
        act()
        taken = []
        for _ in range(requests):
            began = time.perf_counter()
            act()
            taken.append(1e3 * (time.perf_counter() - began))
        times[name] = np.array(taken)
    return times


def main() -> None:
    """Serves, asks and prints."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--requests", type=int, default=50, help="of each kind")
    options = parser.parse_args()
    with serving(options) as address:
        client = Client(address)
        print(client.ask("model")["title"])
        print(f"{'':<16}{'median ms':>11}{'largest ms':>12}")
        for name, times in measure(client, options.requests).items():
            print(f"{name:<16}{np.median(times):11.1f}{times.max():12.1f}", flush=True)


if __name__ == "__main__":
    main()
