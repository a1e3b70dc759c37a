"""Fails if a number in a table of the README or of the results is not in the file of its run.

python docs/check_numbers.py

Above each table with numbers, a comment says where they are from:

    <!-- numbers: columns docs/tables/toon_faces.json . | baselines/training images -->

With `columns`, each column but the first is an object of that JSON file, given by its path, `.` for
the whole file; with `rows`, each row is. Objects of several files are separated by semicolons.
Labels on the other side of the table name the metrics, which `KEYS` translates into the keys of
`metrics.json`. A number must be the value of its key, rounded to the digits shown; a value of the
form `{"mean": ..., "std": ...}` is two numbers. `<!-- numbers: none, REASON -->` exempts a table.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/photographs.md",
    "docs/portraits.md",
    "docs/quantizers.md",
    "docs/results.md",
)
SPREAD = ("precision", "recall", "density", "coverage")

# What a label begins with, and the path of its value in an object of `metrics.json`.
KEYS = {
    "PSNR": "psnr",
    "SSIM": "ssim",
    "LPIPS": "lpips",
    "VGG-FID": "fid",
    "FID": "fid",
    "reconstruction VGG-FID": "rfid",
    **{name: name for name in SPREAD},
    **{f"quadrants: {name}": f"quadrants/{name}" for name in SPREAD},
    **{f"AlexNet: {name}": f"alex/{name}" for name in SPREAD},
    "AlexNet: FID": "alex/fid",
    "new": "new",
    "capacity": "ceiling_bits",
    "marginal bits": "marginal_bits",
    "distinct codes": "distinct_codes_per_image",
    "entries used": "codes_used",
    "perplexity": "perplexity",
    "parameters": "parameters",
    "probes, mean": "probe_accuracy",
    **{
        f"probe of {factor.replace('_', ' ')}": f"attributes/{factor}/codes"
        for factor in (
            *("beard", "mouth", "eyebrows", "eyes", "hair", "rear_hair", "clothes"),
            *("skin_color", "hair_color", "clothes_color"),
        )
    },
}
NUMBER = re.compile(r"(?:\d[\d,]*)?\.?\d+")


def tables(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yields the comment above each table of a page, or "", and the cells of its rows."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if re.match(r"\|[\s:|-]+\|$", line):  # below the header
            above = next((x for x in reversed(lines[: i - 1]) if x.strip()), "")
            note = re.fullmatch(r"<!-- numbers: (.*) -->", above)
            rows = [lines[i - 1]]
            for row in lines[i + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(row)
            yield note[1] if note else "", [[c.strip() for c in r[1:-1].split("|")] for r in rows]


def lookup(value: Any, path: str) -> Any:
    """Returns what `path`, keys separated by slashes, leads to in a JSON value; None if nothing."""
    for key in [] if path == "." else path.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def objects(note: str, root: Path) -> list[Any]:
    """Returns the objects that a comment names, `FILE PATH | PATH ...; FILE PATH ...`, in order."""
    found = []
    for part in note.split(";"):
        file, _, paths = part.strip().partition(" ")
        content = json.loads((root / file).read_text("utf-8"))
        found += [lookup(content, path.strip()) for path in paths.split("|")]
    return found


def values(run: Any, label: str) -> list[float]:
    """Returns the numbers that a run has for a label, as "precision / recall", "group: a / b"."""
    found: list[float] = []
    group, colon, names = re.sub(r"[*`]", "", label).rpartition(": ")
    for name in names.split(" / "):
        prefixes = [prefix for prefix in KEYS if f"{group}{colon}{name}".startswith(prefix)]
        value = lookup(run, KEYS[max(prefixes, key=len)]) if prefixes else None
        if isinstance(value, dict) and value.keys() >= {"mean", "std"}:
            found += [value["mean"], value["std"]]
        elif isinstance(value, int | float):
            found.append(value)
    return found


def agrees(shown: str, value: float) -> bool:
    """Whether a number as it is printed is the value, rounded to as many digits."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown.replace(",", "")) - value) <= 0.5 * 10**-digits + 1e-9


def faults(page: str, root: Path = ROOT) -> list[str]:
    """Returns a line for each number of a page's tables that its run does not have."""
    found = []
    for note, (header, *rows) in tables((root / page).read_text("utf-8")):
        if note.startswith("none, ") or not any(NUMBER.search(c) for r in rows for c in r[1:]):
            continue
        kind, _, where = note.partition(" ")
        if kind not in ("columns", "rows"):
            found.append(f"{page}: the table {' | '.join(header)} does not say where it is from")
            continue
        runs = objects(where, root)
        if len(runs) != len(header) - 1 if kind == "columns" else len(runs) != len(rows):
            found.append(f"{page}: {len(runs)} objects for the table {' | '.join(header)}")
            continue
        for i, row in enumerate(rows):
            for j, cell in enumerate(row[1:]):
                label, run = (row[0], runs[j]) if kind == "columns" else (header[j + 1], runs[i])
                shown, known = NUMBER.findall(cell), values(run, label)
                same = len(shown) == len(known) and all(map(agrees, shown, known))
                if shown and not same:
                    has = f"the run has {known}" if known else "the run has no such value"
                    found.append(f"{page}: {row[0]}, {header[j + 1]}: {cell!r}, but {has}")
    return found


def main() -> int:
    """Checks all pages; returns the exit code."""
    found = [fault for page in PAGES for fault in faults(page)]
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{len(found)} numbers of {', '.join(PAGES)} differ from their runs")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
