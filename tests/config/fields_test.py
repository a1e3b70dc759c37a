"""A `Config` is whole and typed, and its choices are what the package implements."""

import dataclasses
import json
from pathlib import Path

import pytest

from pivq_jax import matching
from pivq_jax.common.errors import InputError
from pivq_jax.config import Config, base_config, check, fields, sections, table
from pivq_jax.config.check import check_config
from pivq_jax.data import NAMES
from pivq_jax.evaluation.features import NETWORKS
from pivq_jax.losses.backbones import BACKBONES


def test_choices_and_limits_are_those_of_what_uses_the_fields():
    assert sections.METHODS == matching.METHODS
    described = sections.DataConfig.__dataclass_fields__["name"].metadata["description"]
    assert set(NAMES) <= set(described.replace(" or ", ", ").split(", "))
    assert sections.FEATURE_NETWORKS == NETWORKS
    assert tuple(BACKBONES) == sections.PERCEPTUAL_NETWORKS
    assert {n: network.minimum_size for n, network in BACKBONES.items()} == check.SMALLEST_IMAGES


def test_every_field_has_a_type_a_description_a_sound_default_and_a_finite_limit():
    for field in fields.all_fields():
        assert type(field.default) is field.type in (bool, int, float, str), field
        assert field.description and not field.description.endswith("."), field
        if field.limit:
            assert field.limit.holds(field.default), field
            if field.type is not str:
                assert not any(map(field.limit.holds, (float("inf"), float("nan")))), field
    check_config(Config(), training=False)
    limits = {field.name: field.limit for field in fields.all_fields()}
    for name in ("model.encoder_depth", "model.decoder_depth", "quantizer.codebook_size"):
        assert not limits[name].holds(10**7)


def test_what_flags_change_is_the_same_config():
    config = base_config()
    assert Config.from_dict(config.to_dict()) == Config()
    assert json.dumps(config.to_dict()) == json.dumps(Config().to_dict())
    config.loss.l2 = 1  # ml_collections makes it a float
    assert Config.from_dict(config.to_dict()).loss.l2 == 1.0


def test_a_config_is_frozen_and_copied_with_other_values():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.width = 3  # type: ignore[misc]
    changed = config.with_fields({"model.width": 64, "seed": 3, "loss.l2": 1})
    assert (changed.model.width, changed.seed, config.model.width) == (64, 3, 128)
    assert type(changed.loss.l2) is float
    assert dict(**changed.mesh) == {"fsdp": 1}
    assert hash(config) == hash(Config()) != hash(changed)


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"model.widht": 3}, "model.widht is unknown"),
        ({"modle.width": 3}, "modle.width is unknown"),
        ({"seed.width": 3}, "seed.width is unknown"),
        ({"a" * 10**6: 1}, f"{'a' * 60} is unknown"),
        ({"model.width": 1.5}, "model.width = 1.5 must be of type int"),
        ({"model.width": True}, "model.width = True must be of type int"),
        ({"model.remat": 1}, "model.remat = 1 must be of type bool"),
        ({"data.path": None}, "data.path = None must be of type str"),
        ({"loss.l1": 10**400}, f"loss.l1 = 1{'0' * 17}..."),
        ({"model": 3}, "model = 3 must be a section"),
    ],
    ids=range(10),
)
def test_fields_of_no_config_are_named_in_short(changes, fault):
    with pytest.raises(InputError) as refusal:
        Config().with_fields(changes)
    assert str(refusal.value).startswith(fault) and len(str(refusal.value)) < 200


def test_every_missing_field_is_named():
    values = Config().to_dict()
    del values["mesh"], values["train"]["steps"]
    with pytest.raises(InputError, match=r"^train\.steps is missing, mesh is missing$"):
        Config.from_dict(values)


def test_the_page_of_all_fields_is_up_to_date():
    path = Path(__file__).parents[2] / "docs" / "config.md"
    assert path.read_text() == table.page(), "python -m pivq_jax.config.table > docs/config.md"


def test_a_table_of_gigabytes_and_a_value_of_megabytes_are_refused_in_short():
    sizes = {"data.image_size": 8192, "model.patch_size": 2}
    with pytest.raises(InputError, match=r"2,147,483,648 must be at most 16,777,216: raise"):
        check_config(Config().with_fields(sizes), training=False)
    with pytest.raises(InputError, match=r"model\.output = 'aaaa") as refusal:
        check.check_fields(Config().with_fields({"model.output": "a" * 10**6}))
    assert len(str(refusal.value)) < 300
