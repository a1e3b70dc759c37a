"""Lists of words: files whose names hold one of them are left out."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import readable_name


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a text in lower case; all but letters and digits separates them.

    >>> words_of("An-old_elf 12")
    ('an', 'old', 'elf', '12')
    """
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


class SkipList:
    """Expressions of one or more words, found in names of files as whole words, in any case."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for words in sorted({words_of(text) for text in expressions} - {()}):
            self._by_first.setdefault(words[0], []).append(words)

    def find(self, file: str) -> str:
        """Returns the first expression in a file's name, without folder and suffix, or ""."""
        words = words_of(PurePath(file).stem)
        for start, word in enumerate(words):
            for wanted in self._by_first.get(word, ()):
                if words[start : start + len(wanted)] == wanted:
                    return " ".join(wanted)
        return ""

    @property
    def digest(self) -> str:
        """A hash of the expressions, whatever their order and case."""
        lines = sorted(" ".join(words) for part in self._by_first.values() for words in part)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_skip_list(path: Path) -> SkipList:
    """Reads a text file with an expression on each line; what follows a # is a comment.

    Raises InputError if there is no such file, it is no text in UTF-8, or holds no expression.
    """
    name = readable_name(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"--skip is {name}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--skip is {name}, which is no text in UTF-8") from error
    expressions = [line.partition("#")[0] for line in lines]
    if not any(map(words_of, expressions)):
        raise InputError(f"--skip is {name}, which holds no words: give an expression on each line")
    return SkipList(expressions)
