"""python -m pivq_jax.config.table > docs/config.md

Prints every field of a config as Markdown.
"""

import re
from typing import get_type_hints

from pivq_jax.common.output import print_and_exit
from pivq_jax.config.fields import Config, Field, all_fields

HEAD = """# Every field of a config

Made by `python -m pivq_jax.config.table`. These are the field defaults, for a laptop's CPU; a
config file changes them, and the command line changes the config: `--config.train.steps=1000`.
How fields must fit together is checked before any work starts. What the fields do is in
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
    parts = [HEAD]
    for name, fields in sections.items():
        if name:
            parts.append(f"## {name}\n")
        parts.append(_table(fields, get_type_hints(Config)[name].__doc__ if name else ""))
    # Other pages of docs/ are named in descriptions.
    return re.sub(r"(?<=see )(\w+\.md)", r"[\1](\1)", "\n".join(parts))


def _table(fields: list[Field], about: str) -> str:
    """The fields of a section; what it is about heads the column of descriptions."""
    rows = [
        f"| `{field.name}` | {field.type.__name__} | {_default(field)} | {_values(field)}"
        f" | {field.description} |"
        for field in fields
    ]
    return "\n".join(
        [
            f"| field | type | default | values | {about} |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _default(field: Field) -> str:
    return f'"{field.default}"' if field.type is str else f"{field.default}"


def _values(field: Field) -> str:
    several = "any of " if field.several else ""
    return field.limit.symbol if field.limit else several + ", ".join(field.choices)


if __name__ == "__main__":
    main()
