"""Names of the pictures of edits."""

import re

from pivq_jax.evaluation.edits import name_of


def test_each_edit_has_a_name_of_its_own_that_is_one_of_a_file():
    edits = [
        {"hair": "bun"},
        {"hair": "spiky"},
        {"hair": "bun", "eyes": "wide"},
        {"skin_color": "#5c3829"},
        {"Male": "no/yes"},
    ]
    names = [name_of(changes) for changes in edits]
    assert names[0] == "hair_bun" and names[2] == "hair_bun_eyes_wide"
    assert len({*names}) == len(edits) and all(re.fullmatch(r"[\w-]+", name) for name in names)
