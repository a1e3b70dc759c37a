"""Labels of portraits from the words of their prompts.

    python -m pivq_jax.data.portraits --source=DIR

DIR holds aligned portraits, see docs/portraits.md, whose files are named PROMPT-NUMBER.png. The
command writes DIR/attributes.csv, from which training, probes and edits take the attributes of
each portrait: gender, age, kind, beard, hair and eyes, as far as the prompt says so. Otherwise, and
if it says two things, such as pink and purple hair, the value is `unknown`.
"""

import argparse
import collections
import csv
import functools
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from pivq_jax.common import files
from pivq_jax.common.command_line import CommandParser, resumable_exit_code
from pivq_jax.common.labels import UNKNOWN
from pivq_jax.data import images, tree
from pivq_jax.data.image_folder import ATTRIBUTES
from pivq_jax.data.skip_list import words_of

# The words of a prompt that tell a value.
_GENDERS = {
    "woman": "woman women female girl girls lady princess queen goddess sorceress priestess witch"
    " mother mom grandma grandmother wife girlfriend waifu tomboy empress enchantress duchess"
    " maiden bride schoolgirl actress housewife songstress noblewoman she her",
    "man": "man men male boy boys guy dude gentleman king prince lord father dad grandpa"
    " grandfather husband boyfriend emperor duke nobleman cowboy fisherman he his",
}
_AGES = {
    "young": "young younger child kid boy girl baby toddler infant teen teens teenage teenager"
    " youth youthful adolescent schoolgirl",
    "old": "old older elderly elder aged ancient grandma grandmother grandpa grandfather granny"
    " wrinkled wrinkles aging crone",
}
_KINDS = {
    "human": "human",
    "elf": "elf elven elvish drow darkelf",
    "orc": "orc ork orcish",
    "goblin": "goblin hobgoblin",
    "dwarf": "dwarf dwarven",
    "vampire": "vampire",
    "undead": "zombie undead ghoul skeleton lich",
    "demon": "demon devil tiefling succubus",
    "robot": "robot android cyborg",
}
_BEARDS = {"yes": "beard bearded goatee", "no": "beardless"}
_EYES = {
    "black": "black dark",
    "brown": "brown hazel",
    "blue": "blue",
    "green": "green emerald",
    "grey": "grey gray white silver",
    "red": "red",
    "purple": "purple violet amethyst",
    "yellow": "yellow golden amber",
}
_HAIR = {
    "black": "black dark raven",
    "brown": "brown chestnut",
    "blonde": "blonde blond golden",
    "red": "red ginger auburn scarlet",
    "grey": "grey gray white silver",
    "blue": "blue",
    "green": "green emerald",
    "pink": "pink",
    "purple": "purple violet",
}
# Without the word hair.
_HEADS = {
    "blonde": "blonde blond",
    "brown": "brunette brunet",
    "red": "redhead redheaded ginger",
    "bald": "bald hairless",
}
# Words after which "old" and "aged" are of no person of that age, or before which.
_YEARS = {"year", "years", "yr", "middle"}
_THINGS = {"painting", "photo", "portrait", "school", "fashioned", "testament", "silver", "rose"}
# A colour stands before its noun, with at most this many words between, none of them a noun.
_BETWEEN = 3
_NOUNS = {"hair", "haired", "eyes", "eyed", "eye", "skin", "skinned", "beard", "lips", "face"}


def labels_of(file: str) -> dict[str, str]:
    """Returns the attributes of a portrait by the words of its file's name.

    >>> labels_of("00/Old-elf-with-short-grey-hair-1200.png")["hair"]
    'grey'
    """
    words = words_of(PurePath(file).stem)
    text = f" {' '.join(words)} "
    beards = _found(words, _BEARDS)
    if any(f" {phrase} " in text for phrase in ("clean shaven", "no facial hair", "no beard")):
        beards = {"no"}
    values_by_factor = {
        "gender": _found(words, _GENDERS),
        "age": _found(_without_years(words), _AGES),
        "kind": _found(words, _KINDS),
        "beard": beards,
        "hair": _before(words, {"hair", "haired"}, _HAIR) | _found(words, _HEADS),
        "eyes": _before(words, {"eyes", "eyed"}, _EYES),
    }
    return {
        name: values.pop() if len(values) == 1 else UNKNOWN
        for name, values in values_by_factor.items()
    }


def _found(words: Sequence[str], values: Mapping[str, str]) -> set[str]:
    return {value for value, telling in values.items() if {*telling.split()} & {*words}}


def _without_years(words: Sequence[str]) -> list[str]:
    """Leaves out the age of "30 year old man", "middle aged" and "old painting"."""
    around = zip(("", *words), words, (*words[1:], ""), strict=False)
    return [word for before, word, after in around if before not in _YEARS and after not in _THINGS]


def _before(words: Sequence[str], nouns: set[str], values: Mapping[str, str]) -> set[str]:
    """Returns the values that are told before one of some nouns."""
    found: set[str] = set()
    for place in (i for i, word in enumerate(words) if word in nouns):
        before = words[max(0, place - 1 - _BETWEEN) : place]
        last = max((i for i, word in enumerate(before) if word in _NOUNS), default=-1)
        found |= _found(before[last + 1 :], values)
    return found


def write_labels(source: Path) -> dict[str, collections.Counter[str]]:
    """Writes the labels of all portraits of a directory; returns how many have each value."""
    root = tree.existing_directory(source)
    rows = {file: labels_of(file) for file in tree.list_images(root)}
    names = [*next(iter(rows.values()))]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", *names])
    writer.writerows([file, *row.values()] for file, row in rows.items())
    files.write_atomically(root / ATTRIBUTES, table.getvalue().encode(errors="surrogateescape"))
    return {name: collections.Counter(row[name] for row in rows.values()) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 for I/O errors, 2 for invalid input, 130 if interrupted."""
    parser = CommandParser(prog="python -m pivq_jax.data.portraits", description=__doc__)
    add: Any = parser.add_argument
    add("--source", required=True, type=Path, help="directory of aligned portraits")
    return resumable_exit_code(functools.partial(_run, parser.parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    source = files.expanded(options.source)
    for name, counts in write_labels(source).items():
        print(f"{name}: {', '.join(f'{value} {n:,}' for value, n in counts.most_common())}")
    print(f"written: {images.readable_name(source / ATTRIBUTES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
