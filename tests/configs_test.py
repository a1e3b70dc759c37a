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
from pivq_jax.config import load_config
from pivq_jax.config.check import check_config, check_workdir
from pivq_jax.config.loader import experiments
from pivq_jax.config.sections import step_at
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.training.optimizer import learning_rate_schedule

NAMES = ("toon_faces", "image_folder", "faces", "portraits", "celeba", "celeba_hq", "ffhq")
KINDS = ("matching", "nearest", "positional")


def test_the_names_here_are_all_there_are():
    assert set(experiments()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_sound_with_every_variant(name):
    for kind, smoke in itertools.product(KINDS, ("", "smoke")):
        variants = [*filter(None, [smoke, kind if kind != "matching" else ""])]
        config = load_config(f"{name}:{','.join(variants)}")
        check_config(config, training=True)
        assert config.name == "_".join([name, *variants]) and config.quantizer.kind == kind
        noise = smoke and name in ("celeba", "celeba_hq", "ffhq")
        assert (config.data.name == "random") == bool(noise)
        assert config.data.image_size == load_config(name).data.image_size


def test_the_large_toon_faces_is_the_recipe_of_before_and_a_check_is_small_in_any_order():
    recipe = {"loss.perceptual": 0.05, "loss.recombination": 0.5}
    before = {
        **recipe,
        "name": "toon_faces_large",
        "model.width": 128,
        "adversarial.start_at": 0.667,
        "optimizer.warmup": 0.0222,
        "train.steps": 9_000,
    }
    assert load_config("toon_faces:large") == load_config("toon_faces").with_fields(before)
    smoke = load_config("toon_faces:smoke")
    for variants in ("smoke,large", "large,smoke"):
        name = f"toon_faces_{variants.replace(',', '_')}"
        assert load_config(f"toon_faces:{variants}") == smoke.with_fields({**recipe, "name": name})


@pytest.mark.parametrize("name", [*NAMES, "toon_faces:smoke", "portraits:128px", "faces:smoke"])
def test_its_model_has_the_size_of_its_config(name):
    config = load_config(name)
    params = model_shapes(config)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert (count < 1_000_000) == ("smoke" in name)
    assert (count > 100_000_000) == (name in ("celeba_hq", "ffhq"))
    codebook = params["quantizer"]["codebook"].shape
    assert codebook == (config.quantizer.codebook_size, config.model.code_dim)
    assert (config.model.num_codes + 1) * codebook[0] < 2**31  # as `match` demands


def test_the_default_keeps_to_300_bits():
    config = load_config("toon_faces")
    n, k = config.model.num_codes, config.quantizer.codebook_size
    assert math.log2(math.comb(k, n)) <= 300 and config.quantizer.kind == "matching"


def test_an_unknown_variant_and_two_kinds_of_quantizer_are_refused():
    with pytest.raises(ValueError, match="'tiny' is unknown: use smoke, nearest, positional"):
        load_config("toon_faces:tiny")
    with pytest.raises(ValueError, match="nearest and positional exclude each other"):
        load_config("toon_faces:nearest,positional")


# Steps of a whole run, of its warm-up, and those at which the codebook, the decoder alone and the
# discriminator begin: what the runs behind the published figures had.
STEPS = {
    "toon_faces": (8_000, 200, 4_000, None, None),
    "toon_faces:large": (9_000, 200, 4_500, None, None),
    "toon_faces:smoke": (60, 10, 20, None, None),
    "image_folder": (8_000, 200, 800, None, None),
    "faces": (3_500, 105, 0, 0, 0),
    "faces:queries": (4_400, 200, 2_200, 2_900, 2_900),
    "faces:smoke": (60, 10, 0, 0, 0),
    "portraits": (3_000, 99, 0, 0, 0),
    "portraits:128px": (3_000, 99, 0, 0, 0),
    "celeba": (100_000, 1_000, 65_000, None, None),
    "celeba_hq": (50_000, 1_000, 32_500, None, None),
    "ffhq": (100_000, 1_000, 65_000, None, None),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_begins_within_a_run_begins_at_its_step_and_the_steps_alone_may_be_others(name):
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
    for steps in (300, 7, 1):
        shorter = config.with_fields({"train.steps": steps})
        check_config(shorter, training=False)
        judged = shorter.adversarial_step if shorter.adversarial.is_used else shorter.init_step
        assert 0 <= shorter.init_step <= judged < steps
        rates = learning_rate_schedule(shorter.optimizer, steps)
        peak = float(rates(step_at(shorter.optimizer.warmup, steps)))
        assert peak == pytest.approx(config.optimizer.learning_rate)


UNJUDGED = {"adversarial.weight": 0.0, "adversarial.recombined_weight": 0.0}
FOLDER, QUERIES = "image_folder", "portraits:queries"
BAD = [  # config, fields, the message
    (FOLDER, {"seed": 2**31}, "seed = 2147483648 must be"),  # one of 2**32 more is the same
    (FOLDER, {"model.output": "unet"}, "model.output = 'unet' is unknown: use one of"),
    (FOLDER, {"quantizer.init_at": 1.0}, r"init_at = 1.0 must be in \[0, 1\)"),
    (FOLDER, {"quantizer.revive_until": 1.5}, r"until = 1.5 must be in \[0, 1\]"),
    (FOLDER, {"loss.codebook": -1.0}, "codebook = -1.0 must be finite and not negative"),
    (FOLDER, {"optimizer.learning_rate": 0.0}, "learning_rate = 0.0 must be .* positive"),
    (FOLDER, {"train.steps": 0}, "steps = 0 must be at least 1"),
    (FOLDER, {"evaluate.batch_size": 10**9}, "batch_size = 1000000000 .* at most 8,192"),
    (FOLDER, {"model.width": 30}, "width = 30 must be a multiple of 4 . model.heads = 8"),
    (FOLDER, {"model.patch_size": 7}, "image_size = 64 .* multiple of model.patch_size"),
    (FOLDER, {"model.patch_size": 1}, "model.patch_size = 1 must be even"),
    (FOLDER, {"model.num_codes": 512}, "num_codes = 512 .*codebook_size = 512 under match"),
    (FOLDER, {"train.accumulation": 3}, "batch_size = 16 .* of train.accumulation = 3"),
    (FOLDER, {"train.accumulation": 16}, "leaves one image in each"),
    (FOLDER, {"mesh.fsdp": 3}, "mesh.fsdp = 3 does not divide the 1 device"),
    (FOLDER, {"loss.l1": 0.0, "loss.l2": 0.0}, r"l1 \+ loss.l2 = 0.0 must be positive"),
    (FOLDER, {"data.image_size": 2, "model.patch_size": 2}, "into 4 patches along a side"),
    (FOLDER, {"quantizer.codebook_size": 10**6}, "latents, fewer than quantizer.codebook"),
    (FOLDER, {"prior.heads": 3}, "prior.width = 128 must be a multiple of prior.heads = 3"),
    (FOLDER, {"profile.steps": 1, "profile.first_step": 8_000}, "below train.steps = 8000"),
    ("celeba", {"data.image_size": 16}, "too small for loss.perceptual_network = 'alex': 31"),
    (QUERIES, {"data.image_size": 8, "loss.perceptual": 0.0}, "even and at least 16"),
    (QUERIES, {"adversarial.start_at": 0.66}, r"not be after quantizer\.freeze_at"),
    (QUERIES, {"adversarial.start_at": 0.49}, r"not be before quantizer\.init_at = 0.5"),
    (QUERIES, {"quantizer.freeze_at": 0.4, **UNJUDGED}, "freeze_at = 0.4 must not be before"),
]


@pytest.mark.parametrize("name, fields, message", BAD)
def test_bad_values_and_combinations_are_refused_by_name(name, fields, message):
    config = load_config(name)
    check_config(config, training=True)
    with pytest.raises(InputError, match=message) as refusal:
        check_config(config.with_fields(fields), training=True)
    assert "\n" not in str(refusal.value)


def test_what_is_no_mistake_where_it_has_no_effect_is_accepted():
    config = load_config("image_folder:nearest")
    of_distinct_codes = {"quantizer.codebook_size": config.model.num_codes}
    check_config(config.with_fields(of_distinct_codes), training=True)
    of_training = {"profile.steps": 1, "profile.first_step": config.train.steps}
    check_config(config.with_fields(of_training), training=False)


def hold(workdir: Path, values: dict[str, Any]) -> None:
    """Makes a folder the workdir of a run that was trained with this config."""
    (workdir / "checkpoints" / "20").mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(values))


def test_a_workdir_keeps_to_its_config(tmp_path):
    config = load_config("image_folder")
    check_workdir(config, tmp_path)  # a new one
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    check_workdir(config.with_fields({"train.batch_size": 2}), tmp_path)  # memory was too small
    hold(tmp_path, config.to_dict())
    untrained = {"sample.count": 3, "evaluate.batch_size": 7, "train.checkpoint_every": 9}
    untrained["model.remat"] = True
    check_workdir(config.with_fields(untrained), tmp_path)  # nothing trained depends on these
    with pytest.raises(InputError, match=r"model\.width = 128, seed = 0:"):
        check_workdir(config.with_fields({"seed": 5, "model.width": 256}), tmp_path)
    hold(tmp_path, config.to_dict() | {"train": 3})
    with pytest.raises(InputError, match=r"another config, with train = 3, train\.accum"):
        check_workdir(config, tmp_path)


def test_a_workdir_in_a_bucket_keeps_to_its_config_once_a_step_is_logged(bucket):
    config = load_config("image_folder")
    other = config.with_fields({"train.batch_size": 2})
    (bucket / "config.json").write_text(json.dumps(config.to_dict()))
    (bucket / "log.jsonl").write_text("")
    check_workdir(other, bucket)
    (bucket / "log.jsonl").write_text('{"step": 5}\n')
    check_workdir(config, bucket)
    with pytest.raises(InputError, match=r"with train\.batch_size = "):
        check_workdir(other, bucket)


def test_a_field_without_effect_in_both_configs_may_be_another(tmp_path):
    config = load_config("image_folder")
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
