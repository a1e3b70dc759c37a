"""Self-contained HTML pages with headings, text, tables and pictures."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from pivq_jax.common.output import as_text

_STYLE = """
:root { color-scheme: light dark; --text: #222; --faint: #666; --line: #ddd; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --faint: #aaa; --line: #444; --page: #181818; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--text); background: var(--page); overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { max-width: 48rem; }
nav a { display: inline-block; padding: .5rem 1rem .5rem 0; }
img { max-width: 100%; }
figure { margin: 1rem 0; }
figcaption { color: var(--faint); }
pre { overflow-y: auto; max-height: 20rem; white-space: pre-wrap; }
div { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
         overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; min-width: 8rem; }
"""


class Table(NamedTuple):
    """A table; floats are shown with three significant digits."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


class Picture(NamedTuple):
    """The contents of a PNG file, with a caption."""

    png: bytes
    caption: str


class Lines(NamedTuple):
    """Text that is shown line by line, in a box of its own."""

    text: str


Part = str | Table | Picture | Lines  # a string is a paragraph of plain text


def page(title: str, sections: Mapping[str, Sequence[Part]]) -> str:
    """Renders an HTML document of sections, by their titles, with the contents after the first."""
    first, *others = (
        f'<section id="s{i}"><h2>{escape(name)}</h2>\n{"".join(map(_part, parts))}</section>\n'
        for i, (name, parts) in enumerate(sections.items())
    )
    links = (f'<a href="#s{i}">{escape(name)}</a>\n' for i, name in enumerate(sections) if i)
    body = "".join([first, "<nav>\n", *links, "</nav>\n", *others])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}</body></html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>\n"
    if isinstance(part, Lines):
        return f"<pre>{escape(part.text)}</pre>\n"
    if isinstance(part, Picture):
        data, caption = base64.b64encode(part.png).decode(), escape(part.caption)
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    rows = [_row("th", part.header), *(_row("td", row) for row in part.rows)]
    return f"<div><table>{''.join(rows)}</table></div>\n"


def _row(tag: str, values: Sequence[object]) -> str:
    cells = "".join(f"<{tag}>{escape(as_text(value))}</{tag}>" for value in values)
    return f"<tr>{cells}</tr>\n"
