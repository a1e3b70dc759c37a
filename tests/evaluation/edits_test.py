"""Names of the pictures of edits."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation.edits import check_changes, name_of
from pivq_jax.sampling import Labels


def test_a_value_that_no_training_image_shows_is_refused():
    labels = Labels(np.array([[0, 1], [0, 0]]), {"age": ("20", "30"), "hat": ("no", "yes")})
    model = SimpleNamespace(labels=labels)
    check_changes(model, {"age": "20", "hat": "yes"})
    with pytest.raises(InputError, match="no training image shows age=30"):
        check_changes(model, {"hat": "no", "age": "30"})
    with pytest.raises(InputError, match="--set: "):
        check_changes(model, {"age": "40"})


def test_each_edit_has_a_name_of_its_own_that_is_one_of_a_file():
    edits = [
        {"hair": "bun"},
        {"hair": "spiky"},
        {"hair": "bun", "eyes": "wide"},
        {"skin_color": "#5c3829"},
        {"Male": "no/yes"},
        *({"age": age} for age in ("5", "<5", ">5")),
    ]
    names = [name_of(changes) for changes in edits]
    assert names[0] == "hair_bun" and names[2] == "hair_bun_eyes_wide"
    assert len({*names}) == len(edits) and all(re.fullmatch(r"[\w-]+", name) for name in names)
