"""Self-contained HTML pages with headings, text, tables and pictures."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
p { max-width: 48rem; }
img { max-width: 100%; image-rendering: pixelated; }
figure { margin: 1rem 0; }
figcaption { color: #666; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
"""


class Table(NamedTuple):
    """A table; floats are shown with four significant digits."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


class Picture(NamedTuple):
    """The contents of a PNG file, with a caption."""

    png: bytes
    caption: str


Part = str | Table | Picture  # a string is a paragraph of plain text


def page(title: str, sections: Mapping[str, Sequence[Part]]) -> str:
    """Renders an HTML document of sections, by their titles."""
    body = "".join(
        f"<h2>{escape(name)}</h2>\n{''.join(map(_part, parts))}" for name, parts in sections.items()
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}</body></html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>\n"
    if isinstance(part, Picture):
        data, caption = base64.b64encode(part.png).decode(), escape(part.caption)
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    rows = [_row("th", part.header), *(_row("td", row) for row in part.rows)]
    return f"<table>{''.join(rows)}</table>\n"


def _row(tag: str, values: Sequence[object]) -> str:
    cells = "".join(f"<{tag}>{escape(cell(value))}</{tag}>" for value in values)
    return f"<tr>{cells}</tr>\n"


def cell(value: object) -> str:
    """Returns a value of a table as text."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
