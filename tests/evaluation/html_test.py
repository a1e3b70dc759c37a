"""The page: parsed again, text escaped, pictures embedded."""

import base64
from html.parser import HTMLParser

from pivq_jax.evaluation.html import Lines, Picture, Table, page


class Reader(HTMLParser):
    """Collects texts by tag and the sources of pictures; fails on unbalanced tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: dict[str, list[str]] = {}
        self.sources: list[str] = []
        self.targets: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.targets += [f"#{given['id']}"] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag == "img":
            self.sources.append(given["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.found.setdefault(self.open[-1], []).append(data)


def test_page():
    png = b"\x89PNG some bytes"
    sections = {
        "First & last": ["A < B", Table(("", "value"), [("pi", 3.14159265), ("n", 12000)])],
        "Pictures": [Picture(png, 'a "face"')],
        "Command": [Lines("a <b>\n  c")],
    }
    reader = Reader()
    reader.feed(page("Run <1>", sections))
    assert not reader.open
    assert reader.found["title"] == reader.found["h1"] == ["Run <1>"]
    assert reader.found["h2"] == ["First & last", "Pictures", "Command"]
    assert reader.found["p"] == ["A < B"]
    assert reader.found["td"] == ["pi", "3.14", "n", "12,000"]
    assert reader.found["pre"] == ["a <b>\n  c"]
    # The first section stands above the contents.
    assert reader.found["a"] == ["Pictures", "Command"]
    assert reader.links == reader.targets[1:] and len({*reader.targets}) == 3
    assert reader.found["figcaption"] == ['a "face"']
    assert reader.sources == ["data:image/png;base64," + base64.b64encode(png).decode()]
