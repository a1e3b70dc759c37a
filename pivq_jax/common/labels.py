"""Labels of images, some of which are not known."""

from collections.abc import Sequence

import numpy as np

# The value of an attribute for images of which it is not known: it is not a class of its own.
UNKNOWN = "unknown"


def is_known(column: np.ndarray, values: Sequence[str]) -> np.ndarray:
    """Whether images have a known value of an attribute, bool [M].

    `column`, int [M], holds indices into the names of its values.
    """
    unknown = values.index(UNKNOWN) if UNKNOWN in values else len(values)
    return column != unknown
