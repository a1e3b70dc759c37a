"""Checks of a config before any work starts."""

import collections
import contextlib
import hashlib
import importlib.metadata
import reprlib
from collections.abc import Container, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

import pivq_jax
from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import check_directory, read_json
from pivq_jax.common.parallel import check_alike
from pivq_jax.config.fields import BUILT_FROM, PATHS, Config, all_fields
from pivq_jax.config.sections import (
    COMPONENT_SIDE,
    RECOMBINATION_PATCHES,
    PriorConfig,
    component_side,
)

MAX_POSITIONS = 2**24  # numbers in a table for patches, such as positions; half a GB to make
SMALLEST_IMAGES = {"alex": 31, "vgg": 16}  # pixels; a test compares it with losses.backbones
# Fields that may change when a run is continued, since training results do not depend on them.
# Paths are among them, since the same files may have another location on another machine.
UNTRAINED: tuple[str, ...] = (
    *("data.path", "data.workers", "loss.perceptual_weights", "model.remat"),
    *("train.log_every", "train.checkpoint_every", "train.picture_every"),
    *("checkpoints.", "profile.", "mesh.", "evaluate.", "sample.", "prior."),
)
# Fields that may change when a run gets more steps, so that what they say keeps its step.
SHARES = (
    *("quantizer.init_at", "quantizer.freeze_at", "adversarial.start_at"),
    "optimizer.warmup",
)
MUON_ALONE = ("optimizer.muon_learning_rate", "optimizer.momentum")  # not used by AdamW
# Not used if the discriminator judges nothing.
DISCRIMINATOR_ALONE: tuple[str, ...] = (
    *("adversarial.perceptual", "adversarial.start_at"),
    *("adversarial.learning_rate", "adversarial.channels"),
)

# What a training step is made of, and settings of JAX that change its results.
COMPUTING = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")
SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl"),
    "jax_threefry_partitionable",
)


def need(good: bool, message: str) -> None:
    """Raises `InputError` with this message unless `good`."""
    if not good:
        raise InputError(message)


def _need_multiple(config: Config, name: str, of: str, times: int = 1) -> None:
    """Checks that a field is a multiple of another one, or of so many times that."""
    value, number = attrgetter(name, of)(config)
    product = f"{times} * {of} = {times * number}" if times > 1 else f"{of} = {number}"
    need(value % (times * number) == 0, f"{name} = {value} must be a multiple of {product}")


def check_config(config: Config, training: bool) -> None:
    """Checks the fields of a config, their combination and, for training, the devices of this run.

    Every InputError here names the fields, the limit and the remedy.
    """
    check_fields(config)
    check_model(config)
    size, quantizer = config.data.image_size, config.quantizer
    train, loss, adversarial = config.train, config.loss, config.adversarial
    need(loss.l1 + loss.l2 > 0, f"loss.l1 + loss.l2 = {loss.l1 + loss.l2} must be positive")
    need(
        loss.recombination == 0 or size % RECOMBINATION_PATCHES == 0,
        f"loss.recombination cuts images into {RECOMBINATION_PATCHES} patches along a side:"
        f" data.image_size = {size} must be a multiple, or set loss.recombination = 0",
    )
    _need_multiple(config, "train.batch_size", "train.accumulation")
    of_several = ("loss.recombination", "adversarial.recombined_weight", "loss.variance")
    need(
        train.batch_size > train.accumulation or not any(attrgetter(*of_several)(config)),
        f"train.batch_size = {train.batch_size} in train.accumulation = {train.accumulation} parts"
        " leaves one image in each, with none to be recombined with or to differ from: raise the"
        f" former, or set {' = '.join(of_several)} = 0",
    )
    if loss.perceptual > 0:
        smallest = SMALLEST_IMAGES[loss.perceptual_network]
        need(
            size >= smallest,
            f"data.image_size = {size} is too small for loss.perceptual_network ="
            f" {loss.perceptual_network!r}: {smallest} at least, or set loss.perceptual = 0",
        )
    if adversarial.is_used:
        need(
            adversarial.start_at >= quantizer.init_at,
            f"adversarial.start_at = {adversarial.start_at} must not be before"
            f" quantizer.init_at = {quantizer.init_at}",
        )
        need(
            size >= 16 and size % 2 == 0,
            f"data.image_size = {size} must be even and at least 16 for the discriminator, or set"
            " adversarial.weight = adversarial.recombined_weight = 0",
        )
        need(
            not quantizer.freezes or adversarial.start_at <= quantizer.freeze_at,
            f"adversarial.start_at = {adversarial.start_at} must not be after"
            f" quantizer.freeze_at = {quantizer.freeze_at}",
        )
    need(
        not quantizer.freezes or quantizer.freeze_at >= quantizer.init_at,
        f"quantizer.freeze_at = {quantizer.freeze_at} must not be before quantizer.init_at ="
        f" {quantizer.init_at}, or 1",
    )
    latents = quantizer.init_batches * train.batch_size * config.model.num_codes
    need(
        latents >= quantizer.codebook_size,
        f"quantizer.init_batches = {quantizer.init_batches} batches give {latents} latents, fewer"
        f" than quantizer.codebook_size = {quantizer.codebook_size}: raise it",
    )
    _need_multiple(config, "prior.width", "prior.heads")
    if training:
        first = config.profile.first_step
        need(
            config.profile.steps == 0 or first < train.steps,
            f"profile.first_step = {first} must be below train.steps = {train.steps}: lower it, or"
            " set profile.steps = 0",
        )
        check_devices(config, jax.device_count())


def check_fields(config: Config, names: Container[str] | None = None) -> None:
    """Checks each field of a config for itself, or those of these names."""
    for name, _, _, _, limit in all_fields():
        if limit and (names is None or name in names):
            value = attrgetter(name)(config)
            need(limit.holds(value), f"{name} = {reprlib.repr(value)} {limit.text}")


def check_model(config: Config) -> None:
    """Checks how the fields from which the model is built go together."""
    patch, patches = config.model.patch_size, config.model.patches(config.data.image_size)
    model, quantizer = config.model, config.quantizer
    _need_multiple(config, "data.image_size", "model.patch_size")
    need(
        model.output == "patch" or patch % 2 == 0,
        f"model.output = 'conv' emits 2x2 pixels: model.patch_size = {patch} must be even, or use"
        " model.output = 'patch'",
    )
    _need_multiple(config, "model.width", "model.heads", times=4)
    need(
        quantizer.kind != "matching" or model.num_codes < quantizer.codebook_size,
        f"model.num_codes = {model.num_codes} must be below quantizer.codebook_size ="
        f" {quantizer.codebook_size} under matching, whose codes are distinct: raise the latter",
    )
    if model.encoder == "components":
        codes, components = model.num_codes, model.num_components
        need(
            quantizer.init_at == quantizer.freeze_at == 0,
            "model.encoder = 'components' has codes before it trains: set quantizer.init_at ="
            " quantizer.freeze_at = 0",
        )
        need(
            components >= codes,
            f"model.num_components = {components} must be at least model.num_codes = {codes}, a"
            " component for each",
        )
        most = 3 * component_side(config.data.image_size) ** 2
        need(
            components <= most,
            f"model.num_components = {components} must be at most the {most} values of an image,"
            f" averaged to {COMPONENT_SIDE} pixels or less",
        )
        size = model.longest_run + max(1, (codes - 1).bit_length())
        need(
            model.code_dim == size,
            f"model.code_dim = {model.code_dim} must be {size} for model.num_codes = {codes} of"
            f" model.num_components = {components}",
        )
        _need_multiple(config, "quantizer.codebook_size", "model.num_codes")
    positions = patches * model.width
    need(
        positions <= MAX_POSITIONS,
        f"(data.image_size / model.patch_size)² * model.width = {positions:,} must be at most"
        f" {MAX_POSITIONS:,}: raise model.patch_size",
    )


def check_devices(config: Config, devices: int) -> None:
    """Checks that the batch and the state can be split over the devices of all processes."""
    train = config.train
    part = train.batch_size // train.accumulation
    fitting = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
    need(
        devices % config.mesh.fsdp == 0,
        f"mesh.fsdp = {config.mesh.fsdp} does not divide the {devices} device(s): use one of"
        f" {fitting}, or another number of devices",
    )
    # Half as many images are recombined, and these are split over the devices as well.
    recombines = config.loss.recombination > 0 or config.adversarial.recombined_weight > 0
    halves = 2 if recombines and devices > 1 else 1
    need(
        part % (halves * devices) == 0,
        f"train.batch_size = {train.batch_size} in train.accumulation = {train.accumulation} parts"
        f" is not divisible by {'twice ' if halves == 2 else ''}{devices} devices: use a multiple"
        f" of {halves * devices * train.accumulation}"
        + (" (half of a batch is recombined)" if halves == 2 else "")
        + ", or another number of devices",
    )


def check_processes(config: Config, **flags: Any) -> None:
    """Checks that all processes run the same: config, flags, code, versions and settings of JAX.

    All must call this, and all fail if one differs; paths of what is read may. Raises InputError.
    """
    if jax.process_count() == 1:
        return
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len({*counts.values()}) > 1:
        devices = ", ".join(str(counts[index]) for index in sorted(counts))
        raise InputError(f"the processes have {devices} devices: give each of them as many")
    fields = flatten_dict(config.to_dict(), sep=".")
    own = {name: value for name, value in fields.items() if name not in (*PATHS, "data.workers")}
    files = sorted(Path(pivq_jax.__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    own |= {"version": f"{pivq_jax.__version__}, code {digest}", **flags}
    for package in COMPUTING:
        own[f"version of {package}"] = "none"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            own[f"version of {package}"] = importlib.metadata.version(package)
    own |= {name: getattr(jax.config, name) for name in SETTINGS}
    check_alike(own, "start all processes with the same command, in the same environment")


def check_workdir(
    config: Config, workdir: Path, writes: bool = True, extends: bool = False
) -> None:
    """Checks that a workdir is new or belongs to a run with the same config, and is writable.

    Without `writes`, it need not be writable; with `extends`, the config may have more steps, and
    then other `SHARES`. A run that ended before its first step, such as for too little memory,
    counts as none.
    """
    check_directory(workdir, "--workdir", writes)
    checkpoints, log = workdir / "checkpoints", workdir / "log.jsonl"
    if not (workdir / "config.json").exists():
        if checkpoints.exists():
            raise InputError(
                f"{workdir} has checkpoints but no config.json: choose another --workdir"
            )
        return
    saved = read_config(workdir)
    begun = log.exists() and log.read_bytes() != b""  # remote paths have no st_size
    begun |= checkpoints.exists() and any(path.name.isdigit() for path in checkpoints.iterdir())
    if not begun and saved.keys() >= config.to_dict().keys():  # others have a config.json, too
        return
    free: tuple[str, ...] = ()
    match saved:
        case {"train": {"steps": int(steps)}} if extends and steps < config.train.steps:
            saved = saved | {"train": saved["train"] | {"steps": config.train.steps}}
            free = SHARES
    if differences := trained_differences(saved, config, free):
        check = " (a check, no model)" if str(saved.get("name", "")).endswith("_smoke") else ""
        raise InputError(
            f"{workdir} holds a run{check} of another config, with {', '.join(differences)}:"
            " choose another --workdir, or the same config"
        )


def trained_differences(
    saved: dict[str, Any], config: Config, free: tuple[str, ...] = ()
) -> list[str]:
    """Lists the differences between two configs that make their trained models different.

    Each is a phrase, the field and its value in `saved`, nested dictionaries. The fields `free` may
    differ.
    """
    free += UNTRAINED
    if config.optimizer.name != "muon":
        free += MUON_ALONE
    if not config.loss.recombination:
        free += ("loss.recombination_warmup",)
    if not config.adversarial.is_used:
        free += DISCRIMINATOR_ALONE
    there, here = (flatten_dict(values, sep=".") for values in (saved, config.to_dict()))
    changed = [name for name in there | here if there.get(name) != here.get(name)]
    return sorted(f"{name} = {there.get(name)}" for name in changed if not name.startswith(free))


def read_config(workdir: Path, flag: str = "--workdir") -> dict[str, Any]:
    """Reads the resolved config of the run in a workdir, named by `flag`.

    That of a published model is refused: its description is with its weights.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(
            f"{workdir} holds no run (no config.json): train first, with --mode=train and the same"
            " --config and --workdir"
        )
    try:
        config = dict(read_json(path))  # what was read may be no object
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({brief(error)}): choose another {flag}") from error
    if "format_version" in config:
        raise InputError(
            f"{workdir} is a published model, no run: give it as --pretrained, or to"
            " pivq_jax.from_pretrained"
        )
    return config


def config_of_model(values: dict[str, Any], origin: str) -> Config:
    """Builds the config of a trained model; the message names its place, `origin`."""
    try:
        config = Config.from_dict(values)
        check_fields(config, BUILT_FROM)
        check_model(config)
        return config
    except InputError as error:
        raise InputError(f"the config in {origin} describes no model: {error}") from error


def prior_settings(values: Mapping[str, Any]) -> PriorConfig:
    """Builds the settings of a prior from some of its fields; raises InputError if one is wrong."""
    config = Config().with_fields({f"prior.{name}": value for name, value in values.items()})
    check_config(config, training=False)
    return config.prior
