"""The trained model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pivq_jax import sampling
from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.files import local_path
from pivq_jax.common.parallel import (
    map_over_batch,
    over_batch,
    own_copy,
    replicated,
    split_rows,
)
from pivq_jax.config.fields import Config
from pivq_jax.inference.completing import check_visible, first_guess, fit
from pivq_jax.interop.pretrained import write_pretrained
from pivq_jax.interop.safetensors_file import without_paths
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.sampling import CodeSpace

# Allow resize overshoot; reject [0, 255] or standardized images.
MAX_ABS_PIXEL = 1.5
COMPLETED_AT_ONCE = 8  # images


class TrainedModel:
    """A trained PI-VQ autoencoder with its averaged weights.

    The networks are jitted and compiled once per batch size. Codes are int32 [B, N], sorted within
    each image; those of a `positional` model are in the order of its latents. `decode` accepts the
    codes of an image in any order and returns bitwise the same image for each order, except for
    `positional` models, where the order matters.

    Shapes use B images, N codes per image, K codebook entries of dimension D, and images of H x W
    pixels, where H = W = `config.data.image_size`.

    Attributes:
        config: the resolved config of the run.
        params: the averaged parameters, a tree of float32 arrays.
        space: the codes that an image can have.
        step: training step of the weights.
        progress: what was saved with the weights, such as `train_seconds`.
        mesh: devices over which batches are split.
        metrics: contents of the run's `metrics.json`; empty if these weights were not evaluated.
        prior: the prior over sets that `--mode=train_prior` has trained for these weights, or that
            was published with them, or None.
    """

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        params: Any,
        step: int,
        progress: dict,
        metrics: dict | None = None,
        parents: np.ndarray | None = None,
        prior: sampling.Prior | None = None,
        labels: sampling.Labels | None = None,
    ) -> None:
        self.config, self.mesh, self.step, self.progress = config, mesh, step, progress
        self.params, self.metrics = params, metrics or {}
        self.space = sampling.CodeSpace.of(config)
        self.parents = parents
        self.labels = labels
        self.prior = prior
        model = pivq_from_config(config, partial(map_over_batch, mesh=mesh))
        whole, rows = replicated(mesh), over_batch(mesh)
        jit = partial(
            jax.jit,
            in_shardings=(whole, rows),
            out_shardings=whole,
            compiler_options=compiler_options(mesh),
        )
        self._encode = jit(partial(_encode, model, self.space))
        self._decode = jit(partial(_decode, model, self.space))
        self._fit = jax.jit(
            partial(fit, model, self.space.method),
            static_argnums=0,
            compiler_options=compiler_options(mesh),
        )

    @property
    def codebook(self) -> jax.Array:
        """The codebook, float32 [K, D]."""
        return own_copy(self.params["quantizer"]["codebook"])

    @property
    def parents(self) -> np.ndarray | None:
        """The codes of training images that `sample` recombines, int32 [M, N], or None.

        Published models bring them; to the model of a workdir, codes can be assigned.
        """
        return self._parents

    @parents.setter
    def parents(self, codes: jax.Array | np.ndarray | None) -> None:
        self._parents = None if codes is None else np.asarray(self._checked(codes))
        self._labels: sampling.Labels | None = None
        # Of these parents, computed on first use.
        self._lift: jax.Array | None = None
        self._table: sampling.FactorTable | None = None

    @property
    def labels(self) -> sampling.Labels | None:
        """The labels of `parents`, from which `edit` knows what codes say, or None.

        Published models bring them if their data is labelled; to other models, they can be assigned
        after the parents.
        """
        return self._labels

    @labels.setter
    def labels(self, labels: sampling.Labels | None) -> None:
        count = 0 if self.parents is None else len(self.parents)
        self._labels = labels and sampling.check_labels(labels, count)
        self._table = None

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the encoder, the codebook and the decoder."""
        return sum(x.size for x in jax.tree.leaves(self.params))

    @property
    def description(self) -> dict[str, Any]:
        """The JSON metadata saved with the weights.

        Its entries are `config`, `step`, `progress` and `metrics`.
        """
        names = ("step", "progress", "metrics")
        return {"config": self.config.to_dict(), **{name: getattr(self, name) for name in names}}

    def encode(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Encodes images.

        Args:
            images: floating point [B, H, W, 3], B >= 1, in [-1, 1].

        Returns:
            int32 [B, N], the codes of each image, values in [0, K).

        Raises:
            ValueError: if the shape, dtype or range of `images` is wrong, or an image is not
                finite.
        """
        return self.encode_with_latents(images)[0]

    def encode_with_latents(self, images: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Encodes images and also returns their latents.

        Args:
            images: floating point [B, H, W, 3], B >= 1, in [-1, 1].

        Returns:
            codes int32 [B, N] as in `encode`, and the latents float32 [B, N, D] before
            quantization, in the order of the encoder's queries.

        Raises:
            ValueError: as in `encode`.
        """
        codes, converged, latents = self._by_rows(self._encode, self._checked_images(images))
        if not np.all(converged):
            raise ValueError(f"image {int(np.argmin(converged))} gives no codes: is it finite?")
        return codes, latents

    def _checked_images(self, images: jax.Array | np.ndarray) -> jax.Array:
        images, size = jnp.asarray(images), self.config.data.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
            shape = f"[B, {size}, {size}, 3], B at least 1"
            raise ValueError(f"images have shape {images.shape}: give {shape}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images have dtype {images.dtype}: give floats in [-1, 1]")
        if jnp.abs(images).max() > MAX_ABS_PIXEL:
            extent = f"{images.min():g} to {images.max():g}"
            raise ValueError(f"images range from {extent}: give floats in [-1, 1]")
        return images

    def decode(self, codes: jax.Array | np.ndarray) -> jax.Array:
        """Decodes codes.

        Args:
            codes: integers [B, N], B >= 1, values in [0, K). Their order within an image matters
                for `positional` models only.

        Returns:
            float32 [B, H, W, 3], images in [-1, 1].

        Raises:
            ValueError: if the shape, dtype or range of `codes` is wrong.
        """
        return self._by_rows(self._decode, self._checked(codes))

    def _checked(self, codes: jax.Array | np.ndarray, partial_sets: bool = False) -> jax.Array:
        if not len(self.space.check(codes, distinct=partial_sets, partial=partial_sets)):
            raise ValueError("there are no codes: give those of at least one image")
        return jnp.asarray(codes)

    def _by_rows(self, function: Callable[..., Any], x: jax.Array) -> Any:
        # Rows are split over the devices, so their number is padded to a multiple of the devices.
        fill = -x.shape[0] % self.mesh.size
        padded = jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)]) if fill else x
        result = own_copy(function(self.params, split_rows(padded, self.mesh)))
        return jax.tree.map(lambda y: y[: x.shape[0]], result)

    def recombine(
        self,
        codes_a: jax.Array,
        codes_b: jax.Array,
        key: jax.Array,
        fraction: float = 0.5,
        lift: jax.Array | None = None,
        prior: bool = False,
    ) -> jax.Array:
        """Recombines the codes of pairs of images; see `sampling.recombine`.

        Args:
            codes_a: integers [B, N], codes of the images to change.
            codes_b: integers [B, N], codes of the images to take codes from.
            key: PRNG key.
            fraction: fraction of the differing codes that is exchanged, in [0, 1].
            lift: float32 [K, K], the result of `log_lift` for real images. It improves samples if
                the codes of an image depend on each other.
            prior: whether the model's prior picks the most plausible of 16 exchanges. It takes the
                place of `lift` in part only, and beside it changes little (docs/prior.md).

        Returns:
            int32 [B, N].

        Raises:
            ValueError: if the codes are invalid (see `decode`), if `prior` is set and the model has
                none, or as in `sampling.recombine`.
        """
        a, b = self._checked(codes_a), self._checked(codes_b)
        judge = self._own_prior() if prior else None
        return sampling.recombine(self.space, self.codebook, a, b, key, fraction, lift, judge)

    def _own_prior(self) -> sampling.Prior:
        """The prior with its parameters where codes are: on this process's first device."""
        if self.prior is None:
            raise ValueError("the model has no prior: train one with --mode=train_prior")
        return self.prior._replace(params=own_copy(self.prior.params))

    def sample_prior(
        self, key: jax.Array, count: int, temperature: float = 1.0, passes: int = 16
    ) -> jax.Array:
        """Draws the codes of new images from the prior, without parents.

        Args:
            key: PRNG key.
            count: number of images, at least 1.
            temperature: positive; below 1, likely codes are drawn more often.
            passes: most passes of the prior's network, at least 1; see `complete_sets`.

        Returns:
            int32 [count, N]; `decode` makes images of them.

        Raises:
            ValueError: if the model has no prior, or an argument is out of range.
        """
        if count < 1:
            raise ValueError(f"count = {count}: draw at least 1 image")
        return self.complete_sets(np.empty((count, 0), np.int32), key, temperature, passes)

    def complete_sets(
        self,
        codes: jax.Array | np.ndarray,
        key: jax.Array,
        temperature: float = 1.0,
        passes: int = 16,
    ) -> jax.Array:
        """Completes parts of sets with codes drawn from the prior.

        Args:
            codes: integers [B, M], B >= 1, M <= N distinct codes of each image, in [0, K).
            key: PRNG key.
            temperature: positive; below 1, likely codes are drawn more often.
            passes: most passes of the prior's network, at least 1. With fewer than there are
                missing codes, several are drawn at once, without regard to each other.

        Returns:
            int32 [B, N], each row with the codes given.

        Raises:
            ValueError: if the model has no prior, or an argument is out of range.
        """
        prior = self._own_prior()
        if not temperature > 0 or passes < 1:
            raise ValueError(
                f"temperature = {temperature:g}, passes = {passes}: both must be positive"
            )
        part = self._checked(codes, partial_sets=True)
        known = part.shape[1]
        missing = self.config.model.num_codes - known
        given = jnp.pad(part.astype(jnp.int32), ((0, 0), (0, missing)))
        return sampling.complete_sets(
            *(prior.network, prior.params, given, key, known, temperature, passes)
        )

    def complete(
        self,
        images: jax.Array | np.ndarray,
        visible: jax.Array | np.ndarray,
        prior: bool | None = None,
    ) -> jax.Array:
        """Finds codes whose images have the visible pixels of given ones.

        The descent (`sampling.fit_visible`) begins with those codes that fit best, out of the codes
        of the image with its hole filled in several colours and, if the model has parents, those
        parents that have most codes in common with them.

        Args:
            images: floating point [B, H, W, 3] in [-1, 1]; hidden pixels are not read.
            visible: bool [H, W] or [B, H, W], False for the pixels to be found.
            prior: whether the model's prior makes hidden parts likely; by default if there is one.

        Returns:
            int32 [B, N].

        Raises:
            ValueError: if the model is `positional`, has no prior to use, no pixel of an image is
                visible, or an argument is invalid, as in `encode`.
        """
        images = self._checked_images(images)
        if self.space.ordered:
            raise ValueError("completion changes sets, and positional codes are none")
        if prior and self.prior is None:
            raise ValueError("the model has no prior: train one with --mode=train_prior")
        seen = check_visible(visible, images.shape)
        judge = self.prior if prior is not False else None
        network, weights = (judge.network, own_copy(judge.params)) if judge else (None, None)
        params, results = own_copy(self.params), []
        for start in range(0, len(images), COMPLETED_AT_ONCE):
            rows = slice(start, start + COMPLETED_AT_ONCE)
            codes = first_guess(
                self.encode, self.decode, self.space, self.parents, images[rows], seen[rows]
            )
            results.append(self._fit(network, params, weights, codes, images[rows], seen[rows]))
        return jnp.concatenate(results)

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Draws the codes of new images: each recombines two of `parents`, drawn at random.

        The second one is the nearest to the first of `sample.nearest_of` images, see
        `sampling.near_parents`. About half of the differing codes are exchanged, with the log lift
        of all parents.

        Args:
            key: PRNG key. `jax.random.key(SEED)` gives the codes of `--mode=sample` of a run with
                this seed.
            count: number of images, at least 1.

        Returns:
            int32 [count, N]; `decode` makes images of them.

        Raises:
            ValueError: if the model has fewer than two parents, or `count` is not positive.
        """
        if self.parents is None or len(self.parents) < 2:
            raise ValueError(
                "the model has no parents to recombine: set model.parents ="
                " model.encode(images) of training images"
            )
        if count < 1:
            raise ValueError(f"count = {count}: draw at least 1 image")
        lift = None if self.space.ordered else self._parents_lift()
        key_parents, key_mix = jax.random.split(key)
        nearest_of = self.config.sample.nearest_of
        pairs = sampling.near_parents(
            key_parents, count, self.parents, self.codebook, nearest_of=nearest_of
        )
        groups = self.parents[pairs]
        return sampling.recombine_groups(
            self.space, self.codebook, groups, key_mix, np.arange(count), 0.5, lift
        )

    def read_factors(self, codes: jax.Array | np.ndarray) -> np.ndarray:
        """Reads the factors of images from their codes; see `sampling.read_factors`.

        Args:
            codes: integers [B, N].

        Returns:
            int32 [B, A], the likeliest value of each factor, an index into `labels.factors`.

        Raises:
            ValueError: if the model has no labels, or the codes are invalid (see `decode`).
        """
        codes = self._checked(codes)
        return np.asarray(sampling.read_factors(codes, self._factor_table()).argmax(-1), np.int32)

    def edit(self, codes: jax.Array | np.ndarray, **changes: str) -> jax.Array:
        """Replaces as few codes as needed to change factors of images; see `sampling.edit`.

        Args:
            codes: integers [B, N].
            changes: the wanted value by factor, as in `hair="bun"`; see `labels.factors`.

        Returns:
            int32 [B, N].

        Raises:
            ValueError: if the model has no labels, a factor or a value is unknown, or the codes are
                invalid (see `decode`).
        """
        codes, table = self._checked(codes), self._factor_table()
        assert self.labels
        wanted = np.tile(self.labels.wanted(**changes), (len(codes), 1))
        lift = self._parents_lift()
        return sampling.edit(self.space, self.codebook, codes, wanted, table, lift)

    def _factor_table(self) -> sampling.FactorTable:
        if self.parents is None or self.labels is None or self.space.ordered:
            raise ValueError(
                "the model has no labels of code sets: set model.parents = model.encode(images) of"
                " labelled training images, and model.labels"
            )
        if self._table is None:
            self._table = sampling.factor_table(self.space, self.parents, self.labels)
        return self._table

    def _parents_lift(self) -> jax.Array:
        assert self.parents is not None
        if self._lift is None:
            self._lift = self.log_lift(self.parents)
        return self._lift

    def log_lift(self, codes: jax.Array | np.ndarray) -> jax.Array:
        """Computes the log lift of all pairs of codes; see `sampling.log_lift`.

        Args:
            codes: integers [M, N], codes of M >= 1 images.

        Returns:
            float32 [K, K].

        Raises:
            ValueError: if the model is `positional`, or the codes are invalid (see `decode`).
        """
        return sampling.log_lift(self.space, np.asarray(codes))

    def interpolate(self, codes_a: jax.Array, codes_b: jax.Array, steps: int) -> jax.Array:
        """Interpolates between pairs of images by exchanging codes; see `sampling.interpolate`.

        Args:
            codes_a: integers [B, N], codes of the first image of each pair.
            codes_b: integers [B, N], codes of the last image of each pair.
            steps: number of images per pair, both ends included, at least 2.

        Returns:
            int32 [steps, B, N].

        Raises:
            ValueError: if the codes are invalid (see `decode`), or as in `sampling.interpolate`.
        """
        a, b = self._checked(codes_a), self._checked(codes_b)
        return sampling.interpolate(self.space, self.codebook, a, b, steps)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes what `from_pretrained` reads: weights, parents with labels, prior and model card.

        Paths in the config are emptied, as they are only valid on this machine.

        Args:
            directory: local directory, created if missing; files of these names are replaced.

        Raises:
            InputError: if `directory` is in remote storage, a file, or the workdir of a run.
        """
        description = without_paths(self.description)
        place = local_path(str(directory))
        write_pretrained(place, self.params, description, self.parents, self.prior, self.labels)


def _encode(
    model: PIVQ, space: CodeSpace, params: Any, images: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    result: Any = model.apply({"params": params}, images, method="encode")
    columns, converged, latents = result
    return space.canonical(columns), converged, latents


def _decode(model: PIVQ, space: CodeSpace, params: Any, codes: jax.Array) -> jax.Array:
    # The last bits of a sum depend on the order of its terms; sorting makes the result unique.
    codes = space.canonical(codes)
    images: Any = model.apply({"params": params}, codes, method="decode")
    return jnp.clip(images, -1.0, 1.0)
