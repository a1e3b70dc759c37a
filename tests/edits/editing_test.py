"""Names of the pictures of edits."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.edits.editing import learn_factors, name_of
from pivq_jax.sampling import CodeSpace, Labels


def test_a_value_that_no_training_image_shows_is_refused():
    labels = Labels(np.array([[0, 1], [0, 0]]), {"age": ("20", "30"), "hat": ("no", "yes")})
    model = SimpleNamespace(labels=labels, space=CodeSpace(2, 4))
    session: Any = SimpleNamespace(model=model, dataset=SimpleNamespace(factors={}))
    assert learn_factors(session, {"age": "20", "hat": "yes"}) is model
    with pytest.raises(InputError, match="no training image shows age=30"):
        learn_factors(session, {"hat": "no", "age": "30"})
    with pytest.raises(InputError, match="--set: age = '40' is unknown: use one of 20, 30"):
        learn_factors(session, {"age": "40"})


def test_unknown_values_are_refused_before_images_are_encoded():
    model = SimpleNamespace(labels=None, space=CodeSpace(2, 4))  # it could encode none
    session: Any = SimpleNamespace(
        model=model, dataset=SimpleNamespace(factors={"age": ("20", "30")}), pool=[]
    )
    for changes in ({"age": "40"}, {"hat": "no"}):
        with pytest.raises(InputError, match=r"--set: .* is unknown: use"):
            learn_factors(session, changes)
    session.dataset.factors = {}
    with pytest.raises(InputError, match="edits need labelled images, and these have none"):
        learn_factors(session, {})


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
