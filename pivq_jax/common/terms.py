"""Licences of models, where those of their training images decide them."""

from typing import NamedTuple


class Terms(NamedTuple):
    """A licence and the credit that it asks for."""

    identifier: str  # the hub's name of the licence
    credit: str  # to give where images are shown in public, Markdown
    text: str  # Markdown


# By the name of the data set. Elsewhere the one who publishes a model chooses its licence.
TERMS = {
    "toon_faces": Terms(
        "cc-by-4.0",
        'The faces are a remix of "Toon Head" by [Johan Melin](https://www.johanmelin.com),'
        " licensed under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/), as distributed"
        " and varied by [DiceBear](https://www.dicebear.com).",
        """The weights and the code sets are published under
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/), the licence of the drawings that they
were made from: a remix of "Toon Head" by [Johan Melin](https://www.johanmelin.com), CC BY 4.0,
through [DiceBear](https://www.dicebear.com). Give the same credit with faces that the model draws.
The code of pivq_jax is Apache-2.0.""",
    )
}
