"""Every config builds with every variant, passes the checks and describes a model."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import Config, load_config
from pivq_jax.config.check import check_config, check_workdir
from pivq_jax.config.loader import experiments
from pivq_jax.config.sections import step_at
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.loop import train
from pivq_jax.training.optimizer import learning_rate_schedule

NAMES = ("toon_faces", "image_folder", "faces", "portraits", "celeba", "celeba_hq", "ffhq")
VARIANTS = ("", "smoke", "nearest", "positional", "smoke,nearest", "smoke,positional")
CASES = [*itertools.product(NAMES, VARIANTS)]


def get_config(name: str, variants: str = "") -> Config:
    return load_config(f"{name}:{variants}")


def test_the_names_here_are_all_there_are():
    assert set(experiments()) == set(NAMES)


@pytest.mark.parametrize("name, variants", CASES)
def test_config_is_sound(name, variants):
    config = get_config(name, variants)
    check_config(config, training=True)
    assert config.name == "_".join([name, *filter(None, variants.split(","))])
    kinds = [v for v in variants.split(",") if v in ("nearest", "positional")]
    assert config.quantizer.kind == (kinds[0] if kinds else "matching")


def test_the_large_toon_faces_is_the_recipe_of_before_and_a_check_is_small_in_any_order():
    large, plain = get_config("toon_faces", "large"), get_config("toon_faces")
    before = {
        "name": "toon_faces_large",
        "model.width": 128,
        "loss.perceptual": 0.05,
        "loss.recombination": 0.5,
        "adversarial.start_at": 0.667,
        "optimizer.warmup": 0.0222,
        "train.steps": 9_000,
    }
    assert large == plain.with_fields(before) and large != plain
    smoke = get_config("toon_faces", "smoke")
    for variants in ("smoke,large", "large,smoke"):
        kept = {"loss.perceptual": 0.05, "loss.recombination": 0.5}
        kept["name"] = f"toon_faces_{variants.replace(',', '_')}"
        assert get_config("toon_faces", variants) == smoke.with_fields(kept)


# The kind of quantizer changes one parameter of one decoder.
@pytest.mark.parametrize(
    "name, variants",
    [
        *itertools.product(NAMES, ("", "smoke")),
        ("toon_faces", "smoke,positional"),
        ("toon_faces", "large"),
        ("faces", "128px"),
        ("portraits", "128px"),
        ("portraits", "smoke,128px"),
    ],
)
def test_its_model_has_the_size_of_its_config(name, variants):
    config = get_config(name, variants)
    params = model_shapes(config)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    if "smoke" in variants:
        assert count < 1_000_000
    elif name in ("celeba_hq", "ffhq"):
        assert count > 100_000_000
    codebook = params["quantizer"]["codebook"].shape
    assert codebook == (config.quantizer.codebook_size, config.model.code_dim)
    assert (config.model.num_codes + 1) * codebook[0] < 2**31  # as `match` demands


def test_the_default_keeps_to_300_bits():
    config = get_config("toon_faces")
    n, k = config.model.num_codes, config.quantizer.codebook_size
    assert math.log2(math.comb(k, n)) <= 300 and config.quantizer.kind == "matching"


def test_an_unknown_variant_and_two_kinds_of_quantizer_are_refused():
    with pytest.raises(ValueError, match="'tiny' is unknown: use smoke, nearest, positional"):
        get_config("toon_faces", "tiny")
    with pytest.raises(ValueError, match="nearest and positional exclude each other"):
        get_config("toon_faces", "nearest,positional")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["celeba", "celeba_hq", "ffhq"])
def test_the_smoke_variant_steps_on_random_images_of_full_size(name, tmp_path, capsys):
    config = get_config(name, "smoke").with_fields(
        {
            "train.steps": 3,
            "train.batch_size": 2,
            "train.log_every": 1,
            "optimizer.warmup": 0.333,
            "quantizer.kind": "nearest",  # the matching of these sizes takes its time on a CPU
            "quantizer.init_at": 0.333,
            "quantizer.init_batches": 2,
            "quantizer.codebook_size": 128,  # as k-means for thousands does
            "checkpoints.keep_best": 1,
        }
    )
    check_config(config, training=True)
    assert config.data.name == "random"
    assert config.data.image_size == get_config(name).data.image_size
    train(config, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert all(math.isfinite(line["loss"]) for line in log)
    assert all("lpips" in line for line in log)
    assert "512 training images" in capsys.readouterr().out
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        _, progress = checkpoints.restore({"step": jax.ShapeDtypeStruct((), int)}, make_mesh())
    assert 1 < progress["score"] < 40  # dB


BAD = {
    "seed": 2**31,  # jax.random.key takes 32 bits: one of 2**32 more is the same
    "model.width": 30,
    "model.code_dim": 1,
    "model.patch_size": 7,
    "model.dtype": "float16",
    "model.output": "unet",
    "quantizer.kind": "grid",
    "quantizer.method": "guess",
    "quantizer.init_at": 1.0,
    "quantizer.revive_until": 1.5,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.0,
    "optimizer.muon_learning_rate": 0.0,
    "optimizer.momentum": 1.0,
    "optimizer.warmup": 1.0,
    "train.log_every": 0,
    "train.ema_decay": -0.1,
    "loss.codebook": -1.0,
    "sample.steps": 1,
    "sample.fraction": 2.0,
    "data.workers": -1,
    "loss.perceptual_network": "squeeze",
    "adversarial.learning_rate": 0.0,
    "train.steps": 0,
    "train.accumulation": 3,
    "evaluate.batch_size": 10**9,
    "sample.count": 2**31 - 1,
    "mesh.fsdp": 3,
}


def test_a_profile_that_would_never_begin_is_refused_before_training():
    fields = {"profile.first_step": 100, "train.steps": 100}
    config = get_config("image_folder", "smoke").with_fields(fields)
    check_config(config, training=True)
    config = config.with_fields({"profile.steps": 1})
    check_config(config, training=False)  # of a model that is trained
    with pytest.raises(InputError, match=r"first_step = 100 must be below train\.steps = 100: "):
        check_config(config, training=True)


UNJUDGED = {"adversarial.weight": 0.0, "adversarial.recombined_weight": 0.0}


def test_codes_are_fixed_after_they_begin_and_not_before_they_are_judged():
    config = get_config("portraits", "queries")
    check_config(config, training=False)
    early = config.with_fields({"quantizer.freeze_at": 0.4, "adversarial.start_at": 0.5})
    with pytest.raises(InputError, match=r"must not be after quantizer\.freeze_at = 0\.4"):
        check_config(early, training=False)
    early = config.with_fields({"quantizer.freeze_at": 0.4, **UNJUDGED})
    with pytest.raises(InputError, match=r"freeze_at = 0\.4 must not be before quantizer\.init_at"):
        check_config(early, training=False)
    late = config.with_fields({"adversarial.start_at": 0.66})
    with pytest.raises(InputError, match=r"must not be after quantizer\.freeze_at"):
        check_config(late, training=False)
    before = config.with_fields({"adversarial.start_at": 0.49})
    with pytest.raises(InputError, match=r"must not be before quantizer\.init_at = 0\.5"):
        check_config(before, training=False)


# Steps of a whole run, of its warm-up, and those at which the codebook, the decoder alone and the
# discriminator begin: what the runs behind the published figures had.
SMOKE_STEPS = (60, 10, 20, None, None)
STEPS = {
    "toon_faces": (8_000, 200, 4_000, None, None),
    "toon_faces:large": (9_000, 200, 4_500, None, None),
    "image_folder": (8_000, 200, 800, None, None),
    "faces": (3_500, 105, 0, 0, 0),
    "faces:queries": (4_400, 200, 2_200, 2_900, 2_900),
    "faces:smoke": (60, 10, 0, 0, 0),
    "portraits": (3_000, 99, 0, 0, 0),
    "portraits:128px": (3_000, 99, 0, 0, 0),
    "portraits:queries": (4_400, 200, 2_200, 2_900, 2_900),
    "portraits:smoke": (60, 10, 0, 0, 0),
    "celeba": (100_000, 1_000, 65_000, None, None),
    "celeba_hq": (50_000, 1_000, 32_500, None, None),
    "ffhq": (100_000, 1_000, 65_000, None, None),
    **{f"{name}:smoke": SMOKE_STEPS for name in NAMES if name not in ("faces", "portraits")},
}


@pytest.mark.parametrize("name", STEPS)
def test_what_begins_within_a_run_begins_at_its_step(name):
    config = load_config(name)
    rates = learning_rate_schedule(config.optimizer, config.train.steps)
    found = (
        config.train.steps,
        int(np.argmax(rates(np.arange(2_000)))),
        config.init_step,
        config.freeze_step if config.quantizer.freezes else None,
        config.adversarial_step if config.adversarial.is_used else None,
    )
    assert found == STEPS[name]


@pytest.mark.parametrize("name", STEPS)
def test_the_number_of_steps_alone_may_be_another(name):
    judged = {"adversarial.weight": 0.1, "adversarial.start_at": 0.9, "quantizer.freeze_at": 0.95}
    for steps in (300, 100, 7, 1):
        for fields in ({}, judged):
            config = load_config(name)
            if config.model.encoder == "components":  # whose codes are fixed from the start
                fields = {}
            config = config.with_fields({**fields, "train.steps": steps})
            check_config(config, training=False)
            assert 0 <= config.init_step <= config.adversarial_step < steps or not fields
            assert 0 <= config.init_step < steps
            warmed = step_at(config.optimizer.warmup, steps)
            rates = learning_rate_schedule(config.optimizer, steps)
            assert float(rates(warmed)) == pytest.approx(config.optimizer.learning_rate)


@pytest.mark.parametrize("field", BAD)
def test_a_bad_value_is_refused_by_name(field):
    config = get_config("image_folder").with_fields({field: BAD[field]})
    with pytest.raises(InputError) as refusal:
        check_config(config, training=True)
    message = str(refusal.value)
    assert field in message and str(BAD[field]) in message and "\n" not in message


def test_matching_alone_needs_more_entries_than_codes():
    for kind in ("nearest", "positional"):
        config = get_config("image_folder", kind)
        config = config.with_fields({"quantizer.codebook_size": config.model.num_codes})
        check_config(config, training=True)
    config = config.with_fields({"quantizer.kind": "matching"})
    with pytest.raises(InputError, match=r"num_codes = (\d+) .*codebook_size = \1"):
        check_config(config, training=True)


def test_a_workdir_in_a_bucket_keeps_to_its_config(bucket):
    config = get_config("image_folder")
    (bucket / "config.json").write_text(json.dumps(config.to_dict()))
    (bucket / "log.jsonl").write_text("")
    other = config.with_fields({"train.batch_size": 2})
    check_workdir(other, bucket)  # no step was logged
    (bucket / "log.jsonl").write_text('{"step": 5}\n')
    check_workdir(config, bucket)
    with pytest.raises(InputError, match=r"with train\.batch_size = "):
        check_workdir(other, bucket)


def hold(workdir: Path, values: dict[str, Any]) -> None:
    """Makes a folder the workdir of a run that was trained with this config."""
    (workdir / "checkpoints" / "20").mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(values))


def test_a_workdir_keeps_to_its_config(tmp_path):
    config = get_config("image_folder")
    check_workdir(config, tmp_path)  # a new one
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    check_workdir(config.with_fields({"train.batch_size": 2}), tmp_path)  # memory was too small
    hold(tmp_path, config.to_dict())
    check_workdir(config, tmp_path)
    untrained = {"sample.count": 3, "evaluate.batch_size": 7, "train.checkpoint_every": 9}
    untrained["model.remat"] = True
    check_workdir(config.with_fields(untrained), tmp_path)  # nothing trained depends on these
    with pytest.raises(InputError, match=r"model\.width = 128, seed = 0:"):
        check_workdir(config.with_fields({"seed": 5, "model.width": 256}), tmp_path)


def test_a_field_without_effect_in_both_configs_may_be_another(tmp_path):
    config = get_config("image_folder")
    hold(tmp_path, config.to_dict())
    no_effect = {"loss.recombination": 0.0, "loss.recombination_warmup": 0.5}
    with pytest.raises(InputError, match=r"with loss\.recombination = [0-9.]+:"):
        check_workdir(config.with_fields(no_effect), tmp_path)
    judge = {"adversarial.start_at": 0.75, "adversarial.channels": 8}
    check_workdir(config.with_fields(judge), tmp_path)
    hold(tmp_path, config.with_fields({"loss.recombination": 0.0}).to_dict())
    check_workdir(config.with_fields(no_effect), tmp_path)
    hold(tmp_path, config.with_fields({**judge, "adversarial.weight": 0.5}).to_dict())
    with pytest.raises(InputError, match=r"with adversarial\.weight = 0\.5:"):
        check_workdir(config, tmp_path)
    both = r"with adversarial\.channels = 8, adversarial\.start_at = 0\.75:"
    with pytest.raises(InputError, match=both):
        check_workdir(config.with_fields({"adversarial.weight": 0.5}), tmp_path)


def test_a_workdir_whose_config_is_damaged_is_one_of_another_config(tmp_path):
    config = get_config("image_folder")
    hold(tmp_path, config.to_dict() | {"train": 3})
    with pytest.raises(InputError, match=r"another config, with train = 3, train\.accum"):
        check_workdir(config, tmp_path)
