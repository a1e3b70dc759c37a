"""Damaged copies of valid files: changes of their bytes, of their fields, and of nested values."""

import copy
import struct
import zlib
from typing import Any

from hypothesis import strategies as st

# Values at which parsers go wrong, in files of text and of bytes.
NUMBERS = [0, 1, -1, 2, 7, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63]
JSON_VALUES = [
    *(None, True, "", "x", "matching", [], {}, [[[1]]], 0.5, -0.0, float("nan"), float("inf")),
    *(10**6, 10**20, 10**400, -(10**9), 1e308, "\x1b[2J\n", "a" * 5000, {"a": {"b": 1}}, *NUMBERS),
]
TEXTS = [
    *("", "0", "-1", "2", "9" * 5000, "²", "\x00", '"', "\n", "\r", ",", ",,", "\x1b[31m", "image"),
    *("a.png", "000001.jpg", "x" * 140_000, "\ufeff", "\udc80", "\u2028", "1e9", "  ", "a b", "-"),
]
# Opcodes of pickle that build, call, set, memoize and persist.
OPCODES = (
    b"(.0123FNQPRSTUVXaebhijlor}]t)csdupqGIJKLM\x85\x86\x87\x88\x80\x81\x82\x8a\x8b\x8c\x8d\x8e"
)
OPCODES += b"\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98"

Change = tuple[str, float, int, int]
changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "splice", "number", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=5,
)


def mutate(content: bytes, made: list[Change], other: bytes = b"", alphabet: bytes = b"") -> bytes:
    """Applies changes to bytes; pieces to splice come from `other`."""
    for kind, where, size, value in made:
        at = int(where * (len(content) + 1))
        head, tail = content[:at], content[at:]
        few = 1 + size % 40
        if kind == "flip":
            content = head + bytes([(tail or b"\0")[0] ^ (value or 1)]) + tail[1:]
        elif kind == "cut":
            content = head + (tail[few:] if value % 4 else b"")
        elif kind == "insert":
            new = alphabet[value % len(alphabet)] if alphabet else value
            content = head + bytes([new]) * (few if value % 3 == 0 else 1) + tail
        elif kind == "splice":
            start = size % (len(other) + 1)
            content = head + other[start : start + 1 + value] + tail[value % 2 * value :]
        elif kind == "repeat":
            content = head + tail[:few] * (1 + value % 50) + tail[few:]
        else:
            form = "<>"[value % 2] + "BHIQ"[value // 2 % 4]
            width = struct.calcsize(form)
            number = NUMBERS[size % len(NUMBERS)] % 256**width
            content = head + struct.pack(form, number) + tail[width:]
    return content


def mutate_tree(tree: Any, made: list[Change]) -> Any:
    """Applies changes to nested dictionaries and lists."""
    tree = copy.deepcopy(tree)
    for kind, where, size, value in made:
        places = [(tree, key) for key in tree] if isinstance(tree, dict) else []
        for place, key in places:
            inner = place[key]
            if isinstance(inner, dict | list):
                places += [
                    (inner, each)
                    for each in (inner if isinstance(inner, dict) else range(len(inner)))
                ]
        if not places:
            return tree
        place, key = places[int(where * len(places))]
        if kind == "cut":
            del place[key]
            continue
        other, name = places[size % len(places)]
        odd = copy.deepcopy(JSON_VALUES[size % len(JSON_VALUES)])
        if kind == "splice" and name in other:
            place[key] = copy.deepcopy(other[name])
        elif kind == "insert" and isinstance(place, dict):
            place[f"{key}{TEXTS[value % len(TEXTS)]}"] = odd
        else:
            place[key] = odd
    return tree


def mutate_text(text: str, made: list[Change], separator: str) -> str:
    """Applies changes to the fields of lines."""
    rows = [line.split(separator) for line in text.splitlines()]
    for kind, where, size, value in made:
        row = rows[int(where * len(rows))]
        at = size % (len(row) + 1)
        if kind == "cut":
            del row[at:]
        elif kind == "repeat":
            rows.insert(value % len(rows), list(row))
        elif kind == "splice":
            row[at:] = rows[value % len(rows)]
        else:
            row[at : at + (kind != "insert")] = [TEXTS[value % len(TEXTS)]]
    return "\n".join(separator.join(row) for row in rows)


def with_checksums(png: bytes) -> bytes:
    """A PNG file whose chunks have the right checksums, as far as their lengths allow."""
    fixed, at = bytearray(png), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4])
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)
