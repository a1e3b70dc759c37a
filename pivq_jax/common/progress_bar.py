"""Progress bars on stderr."""

import sys
from collections.abc import Iterable
from typing import Any


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """A bar of tqdm with ETA; in a file instead of a terminal, a line every ten seconds.

    The options are those of `tqdm.tqdm`; without items, call `update`.
    """
    from tqdm import tqdm  # opening a model does without

    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10.0, **options)
