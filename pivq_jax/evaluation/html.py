"""Self-contained HTML pages with headings, text, tables and pictures."""

import base64
import dataclasses
import html
from collections.abc import Sequence

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


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; floats are shown with four significant digits."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """The contents of a PNG file, with a caption."""

    png: bytes
    caption: str


Part = str | Table | Picture  # a string is a paragraph of plain text


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page."""

    title: str
    parts: Sequence[Part]


def page(title: str, sections: Sequence[Section]) -> str:
    """Renders an HTML document."""
    body = "".join(
        f"<h2>{html.escape(section.title)}</h2>\n{''.join(map(_part, section.parts))}"
        for section in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}</body></html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>\n"
    if isinstance(part, Table):
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell(value))}</td>" for value in row) + "</tr>\n"
            for row in part.rows
        )
        header = "".join(f"<th>{html.escape(name)}</th>" for name in part.header)
        return f"<table><tr>{header}</tr>\n{rows}</table>\n"
    data = base64.b64encode(part.png).decode()
    caption = html.escape(part.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def cell(value: object) -> str:
    """Returns a value of a table as text."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
