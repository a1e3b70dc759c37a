"""The trained model."""

import dataclasses
import math
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import local_path
from pivq_jax.common.output import progress_bar
from pivq_jax.common.parallel import to_first_device
from pivq_jax.common.weights import digest
from pivq_jax.config.description import without_paths
from pivq_jax.config.fields import BUILT_FROM, Config
from pivq_jax.inference.programs import Programs, programs_of
from pivq_jax.interop.pretrained import Published, write_pretrained
from pivq_jax.interop.weights import to_torch
from pivq_jax.sampling import edit as edits
from pivq_jax.sampling.completion import first_guess

Array = jax.Array | np.ndarray
MAX_ABS_PIXEL = 1.5  # allow resize overshoot; reject [0, 255] or standardized images
COMPLETED_AT_ONCE = 8  # images
ENCODED_AT_ONCE = 256  # images, whose latents take much more memory than codes
RECOMBINED_AT_ONCE = 256  # images, each of which takes megabytes with thousands of codes


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained PI-VQ autoencoder with its averaged weights.

    Its methods take and return arrays of these shapes, B being at least 1:

    - images, floating point [B, H, W, 3] in [-1, 1], where H = W = `config.data.image_size`;
    - codes, integers [B, N] in [0, K), int32 where returned, sorted within each image. `decode`
      accepts the codes of an image in any order and returns bitwise the same image for each. In a
      `positional` model codes are in the order of the latents, and this order matters.

    They raise ValueError for arrays of another form, and compile once per batch size. To add to a
    model, make a new one: `dataclasses.replace(model, parents=model.encode(images), labels=None)`.
    """

    config: Config  # the resolved config of the run
    mesh: Mesh  # devices over which batches are split
    params: Any  # the averaged parameters, a tree of float32 arrays
    step: int  # training step of the weights
    progress: dict[str, Any]  # what was saved with the weights, such as `train_seconds`
    # Contents of the run's `metrics.json`; empty if these weights were not evaluated.
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    parents: np.ndarray | None = None  # the codes of training images that `sample` recombines
    prior: sampling.Prior | None = None  # trained by `pivq_jax.prior train` or published
    labels: sampling.Labels | None = None  # those of `parents`, which `edit` needs

    def __post_init__(self) -> None:
        if self.parents is not None:
            object.__setattr__(self, "parents", np.asarray(self._checked(self.parents)))
        if self.labels is not None:
            count = 0 if self.parents is None else len(self.parents)
            object.__setattr__(self, "labels", edits.check_labels(self.labels, count))

    @cached_property
    def space(self) -> sampling.CodeSpace:
        """The codes that an image can have."""
        return sampling.CodeSpace.of(self.config)

    @cached_property
    def codebook(self) -> jax.Array:
        """The codebook, float32 [K, D]."""
        return to_first_device(self.params["quantizer"]["codebook"])

    @cached_property
    def lift(self) -> jax.Array | None:
        """The log lift of `parents`, float32 [K, K]; None where it would not help."""
        assert self.parents is not None
        return self.log_lift(self.parents) if self.space.lifts else None

    @cached_property
    def fingerprint(self) -> bytes:
        """A fingerprint of the weights, 8 bytes, by which files of codes know their model.

        It is that of the published `model.safetensors` (docs/codec_format.md); step and config do
        not matter.
        """
        return digest(to_torch(self.params))[:8]

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the encoder, the codebook and the decoder."""
        return sum(x.size for x in jax.tree.leaves(self.params))

    @property
    def description(self) -> dict[str, Any]:
        """The JSON metadata saved with the weights: `config`, `step`, `progress`, `metrics`."""
        own = {"step": self.step, "progress": self.progress, "metrics": self.metrics}
        return {"config": self.config.to_dict(), **own}

    def encode(self, images: Array) -> jax.Array:
        """Encodes images to codes. Also raises ValueError if an image is not finite."""
        images = _check_images(images, self.config.data.image_size)
        starts = range(0, len(images), ENCODED_AT_ONCE)
        parts = [self._encode(images[i : i + ENCODED_AT_ONCE], i)[0] for i in starts]
        return jnp.concatenate(parts)

    def encode_with_latents(self, images: Array) -> tuple[jax.Array, jax.Array]:
        """Encodes images to codes and the latents, float32 [B, N, D], before quantization.

        Latents are in the order of the encoder's queries. Raises as `encode` does.
        """
        return self._encode(_check_images(images, self.config.data.image_size))

    def decode(self, codes: Array) -> jax.Array:
        """Decodes codes to images, float32."""
        return self._programs.decode(self.params, self._checked(codes))

    def recombine(
        self,
        codes_a: Array,
        codes_b: Array,
        key: jax.Array,
        fraction: float = 0.5,
        lift: jax.Array | None = None,
        prior: bool = False,
    ) -> jax.Array:
        """Exchanges codes of images A for codes of images B: a `fraction` in [0, 1] of their pairs.

        A `lift`, the `log_lift` of real images, improves samples if the codes of an image depend on
        each other. If `prior` is True, the model's prior picks the most plausible of 16 exchanges;
        it replaces `lift` only in part, and with `lift` it changes little (docs/prior.md). Raises
        ValueError as `sampling.recombine` does, and if there is no prior to use.
        """
        a, b = self._checked(codes_a), self._checked(codes_b)
        own_prior = self._own_prior() if prior else None
        return sampling.recombine(self.space, self.codebook, a, b, key, fraction, lift, own_prior)

    def interpolate(self, codes_a: Array, codes_b: Array, steps: int) -> jax.Array:
        """Interpolates between pairs of images by exchanging codes; see `sampling.interpolate`.

        Returns int32 [steps, B, N], from the codes of A at the first step to those of B at the end.
        Raises ValueError if there are fewer than two steps.
        """
        a, b = self._checked(codes_a), self._checked(codes_b)
        return sampling.interpolate(self.space, self.codebook, a, b, steps)

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Draws the codes of new images: each recombines two of `parents`, drawn at random.

        See `sampling.recombine_at_random`. Settings are the section `sample` of the config, and the
        log lift is that of all parents. With `jax.random.key(SEED)` and the same count, at most
        4,096, the codes are those of `--mode=sample` of a run with this seed. Raises ValueError if
        there are fewer than two parents, or `count` is below 1.
        """
        if self.parents is None:
            raise ValueError(
                "the model has no parents to recombine: use dataclasses.replace(model,"
                " parents=model.encode(images)) with training images"
            )
        settings = self.config.sample
        codes, _ = sampling.recombine_at_random(
            self.space,
            self.codebook,
            self.parents,
            count,
            key,
            min(count, RECOMBINED_AT_ONCE),
            fraction=settings.fraction,
            lift=self.lift,
            nearest_of=settings.nearest_of,
            spread=settings.spread,
        )
        return jnp.asarray(codes)

    def sample_prior(
        self, key: jax.Array, count: int, temperature: float = 1.0, passes: int = 16
    ) -> jax.Array:
        """Draws the codes of `count` >= 1 new images from the prior, without parents.

        For the other arguments, the result and errors see `complete_sets`.
        """
        if count < 1:
            raise ValueError(f"count = {count}: draw at least 1 image")
        return self.complete_sets(np.empty((count, 0), np.int32), key, temperature, passes)

    def complete_sets(
        self, codes: Array, key: jax.Array, temperature: float = 1.0, passes: int = 16
    ) -> jax.Array:
        """Completes parts of sets, integers [B, M] with M <= N, with codes drawn from the prior.

        See `sampling.complete_sets`. Raises ValueError if the model has no prior, or an argument is
        out of range.
        """
        prior = self._own_prior()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature = {temperature:g}: give a positive, finite one")
        part = self._checked(codes, partial=True)
        known = part.shape[1]
        given = jnp.pad(part, ((0, 0), (0, self.space.num_codes - known)))
        return sampling.complete_sets(
            prior.network, prior.params, given, key, known, temperature, passes
        )

    def complete(self, images: Array, visible: Array, prior: bool | None = None) -> jax.Array:
        """Finds codes of images that match the visible pixels of given images (docs/edits.md).

        `visible` is bool [H, W] or [B, H, W], False for the pixels to be found, which are not read.
        `prior` says whether the model's prior is used, to make hidden parts likely; by default it
        is used if there is one. A bar shows the progress of more than eight images. Raises
        ValueError if the model is `positional` or lacks a prior that is asked for, or if no pixel
        of an image is visible.
        """
        if self.space.ordered:
            raise InputError("completion changes sets, and positional codes are none")
        images = _check_images(images, self.config.data.image_size, visible)
        seen = _check_visible(visible, images.shape)
        use_prior = self.prior is not None if prior is None else prior
        own_prior = self._own_prior() if use_prior else None
        params, completed = to_first_device(self.params), []
        count, few = len(images), len(images) <= COMPLETED_AT_ONCE
        with progress_bar(desc="completing", total=count, unit=" images", disable=few) as bar:
            for start in range(0, count, COMPLETED_AT_ONCE):
                part, part_seen = (x[start : start + COMPLETED_AT_ONCE] for x in (images, seen))
                codes = first_guess(
                    self.encode, self.decode, self.space, self.parents, part, part_seen
                )
                codes = self._programs.fit(params, own_prior, codes, part, part_seen)
                completed.append(jax.block_until_ready(codes))
                bar.update(len(codes))
        return jnp.concatenate(completed)

    def read_factors(self, codes: Array) -> np.ndarray:
        """Reads the factors of images from their codes (docs/edits.md).

        Returns int32 [B, A], the likeliest value of each factor, an index into `labels.factors`.
        Raises ValueError if the model has no labels, or is `positional`.
        """
        chances = edits.read_factors(self._checked(codes), self._factor_table)
        return np.asarray(chances.argmax(-1), np.int32)

    def edit(self, codes: Array, /, **changes: str) -> jax.Array:
        """Replaces as few codes as needed to change factors of images (docs/edits.md).

        `changes` are the wanted values by factor, as in `hair="bun"`; see `labels.factors`. Raises
        ValueError if the model has no labels or is `positional`, or if a factor or value is unknown
        or no parent has that value.
        """
        checked, table = self._checked(codes), self._factor_table
        assert self.labels
        targets = self.labels.wanted(**changes)
        return edits.edit(self.space, self.codebook, checked, targets, table, self.lift)

    def log_lift(self, codes: Array) -> jax.Array:
        """Computes the log lift of all pairs of codes, float32 [K, K]; see `sampling.log_lift`.

        Raises ValueError if the model is `positional`.
        """
        return sampling.log_lift(self.space, np.asarray(codes))

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes what `from_pretrained` reads: weights, parents with labels, prior and model card.

        Files of these names in the local `directory`, which is created if missing, are replaced.
        Paths in the config are emptied, as they are only valid on this machine. Raises InputError
        if `directory` is in remote storage, a file, or the workdir of a run, or if the parents have
        more than 2^24 codes.
        """
        description, place = without_paths(self.description), local_path(str(directory))
        published = Published(self.params, description, self.parents, self.labels, self.prior)
        write_pretrained(place, published)

    @cached_property
    def _programs(self) -> Programs:
        # Models that differ in other fields share theirs.
        built = {name: attrgetter(name)(self.config) for name in BUILT_FROM}
        return programs_of(Config().with_fields(built), self.mesh)

    @cached_property
    def _factor_table(self) -> edits.FactorTable:
        if self.parents is None or self.labels is None or self.space.ordered:
            raise ValueError(
                "the model has no labels of code sets: use dataclasses.replace(model,"
                " parents=model.encode(images), labels=...) with labelled training images"
            )
        return edits.factor_table(self.space, self.parents, self.labels)

    def _encode(self, images: jax.Array, first: int = 0) -> tuple[jax.Array, jax.Array]:
        """Encodes checked images, of which `first` is the number of the first one in messages."""
        codes, converged, latents = self._programs.encode(self.params, images)
        if not np.all(converged):
            number = first + int(np.argmin(converged))
            raise ValueError(f"image {number} gives no codes: is it finite?")
        return codes, latents

    def _own_prior(self) -> sampling.Prior:
        """The prior with its parameters where codes are: on this process's first device."""
        if self.prior is None:
            raise ValueError("the model has no prior: train one with pivq_jax.prior train")
        return to_first_device(self.prior)

    def _checked(self, codes: Array, partial: bool = False) -> jax.Array:
        if not len(self.space.check(codes, distinct=partial, partial=partial)):
            raise ValueError("there are no codes: give those of at least one image")
        return jnp.asarray(codes, jnp.int32)


def _check_images(images: ArrayLike, size: int, visible: ArrayLike | None = None) -> jax.Array:
    """Checks images, floating point [B, size, size, 3], finite, in [-1, 1] up to overshoot.

    Pixels that are not `visible` (see `_check_visible`) are not read, and 0 in what is returned.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        shape = f"[B, {size}, {size}, 3], B at least 1"
        raise ValueError(f"images have shape {images.shape}: give {shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images have dtype {images.dtype}: give floats in [-1, 1]")
    if visible is not None:
        images = jnp.where(_check_visible(visible, images.shape) > 0, images, 0)
    finite = np.asarray(jnp.isfinite(images).all((1, 2, 3)))
    if not finite.all():
        raise ValueError(f"image {int(np.argmin(finite))} is not finite: give floats in [-1, 1]")
    low, high = images.min(), images.max()
    if max(-low, high) > MAX_ABS_PIXEL:
        raise ValueError(f"images range from {low:g} to {high:g}: give floats in [-1, 1]")
    return images


def _check_visible(visible: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Checks which pixels are visible, bool [H, W] or [B, H, W]; returns float32 [B, H, W, 1]."""
    visible = jnp.asarray(visible)
    count, height, width = shape[:3]
    if visible.dtype != bool or visible.shape not in ((height, width), (count, height, width)):
        raise ValueError(
            f"visible is {visible.dtype} {visible.shape}: give bool [{height}, {width}] or"
            f" [{count}, {height}, {width}]"
        )
    if not jnp.all(visible.any((-2, -1))):
        raise ValueError("no pixel of an image is visible: use sample or sample_prior")
    return jnp.broadcast_to(visible, shape[:3]).astype(jnp.float32)[..., None]
