"""python -m pivq_jax.config.table > docs/config.md

Prints every field of a config as Markdown.
"""

import re

from pivq_jax.common.output import print_and_exit
from pivq_jax.config.fields import Config, Field, all_fields

HEAD = """# Every field of a config

This page lists every field of a config with its default, which suits a laptop's CPU. A config file
changes fields, and so does the command line: `--config.train.steps=1000`. What they do is in
[training.md](training.md) and [architecture.md](architecture.md).
"""


def main() -> None:
    """Prints the page."""
    print_and_exit(page().removesuffix("\n"))


def page() -> str:
    """Returns the page in Markdown."""
    sections: dict[str, list[Field]] = {}
    for field in all_fields():
        sections.setdefault(field.name.rpartition(".")[0], []).append(field)
    lines = [HEAD]
    for name, fields in sections.items():
        if name:
            lines.append(f"## {name}\n")
        about = Config()[name].__doc__ if name else ""
        head = [f"| field | type | default | values | {about} |", "| --- | --- | --- | --- | --- |"]
        lines += [*head, *map(_row, fields), ""]
    # Other pages of docs/ are named in descriptions.
    return re.sub(r"(?<=see )(\w+\.md)", r"[\1](\1)", "\n".join(lines))


def _row(field: Field) -> str:
    default = f'"{field.default}"' if field.type is str else field.default
    values = field.limit.symbol if field.limit else ""
    kind = field.type.__name__
    return f"| `{field.name}` | {kind} | {default} | {values} | {field.description} |"


if __name__ == "__main__":
    main()
