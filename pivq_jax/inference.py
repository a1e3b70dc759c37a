"""A trained model to encode, decode, recombine and interpolate with: `load`, `from_pretrained`."""

import json
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
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, local_path
from pivq_jax.common.parallel import (
    make_mesh,
    map_over_batch,
    over_batch,
    own_copy,
    replicated,
    split_rows,
)
from pivq_jax.config.check import read_config
from pivq_jax.config.fields import Config
from pivq_jax.interop.pretrained import read_pretrained, write_pretrained
from pivq_jax.interop.safetensors_file import config_of_model, model_shapes
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.training.checkpoints import Checkpoints

# Allow resize overshoot; reject [0, 255] or standardized images.
MAX_ABS_PIXEL = 1.5
# Fields of the config that name files of the machine it was trained on.
PATHS = (("data", "path"), ("loss", "perceptual_weights"), ("evaluate", "features_path"))


class TrainedModel:
    """A trained PIVQ with its averaged weights; every method is jitted.

    Codes are int32 [B, N], sorted in each image (`positional`: in latent order). `decode` takes
    the codes of an image in any order and gives the same bits for each (but for `positional`).

    Attributes:
        config: the run's resolved config.
        kind: of its quantizer.
        method: the solver of its matching, for recombination too.
        step: the training step of the weights.
        progress: what the run recorded beside them, such as `train_seconds`.
        mesh: the devices that batches are split over.
        metrics: the figures of the run's `metrics.json`, empty if these weights were not evaluated.
    """

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        params: Any,
        step: int,
        progress: dict,
        metrics: dict | None = None,
    ) -> None:
        self.config, self.mesh, self.step, self.progress = config, mesh, step, progress
        self.params, self.metrics = params, metrics or {}
        self.kind = config.quantizer.kind
        self.method = config.quantizer.method
        model = pivq_from_config(config, partial(map_over_batch, mesh=mesh))
        whole, rows = replicated(mesh), over_batch(mesh)
        jit = partial(
            jax.jit,
            in_shardings=(whole, rows),
            out_shardings=whole,
            compiler_options=compiler_options(mesh),
        )
        self._encode = jit(partial(_encode, model))
        self._decode = jit(partial(_decode, model))

    @property
    def codebook(self) -> jax.Array:
        """f32 [K, D]."""
        return own_copy(self.params["quantizer"]["codebook"])

    @property
    def num_parameters(self) -> int:
        """Numbers in the encoder, the codebook and the decoder."""
        return sum(x.size for x in jax.tree.leaves(self.params))

    @property
    def description(self) -> dict[str, Any]:
        """What goes with the weights into a file: JSON."""
        names = ("step", "progress", "metrics")
        return {"config": self.config.to_dict(), **{name: getattr(self, name) for name in names}}

    def encode(self, images: jax.Array | np.ndarray) -> jax.Array:
        """images f32 [B, H, W, 3] in [-1, 1] -> codes int32 [B, N]."""
        return self.encode_with_latents(images)[0]

    def encode_with_latents(self, images: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
        """As `encode`; besides, the latents f32 [B, N, D] in query order, before quantization."""
        images, size = jnp.asarray(images), self.config.data.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
            shape = f"[B, {size}, {size}, 3], B at least 1"
            raise ValueError(f"images have shape {images.shape}: give {shape}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images have dtype {images.dtype}: give floats in [-1, 1]")
        if jnp.abs(images).max() > MAX_ABS_PIXEL:
            extent = f"{images.min():g} to {images.max():g}"
            raise ValueError(f"images range from {extent}: give floats in [-1, 1]")
        codes, converged, latents = self._by_rows(self._encode, images)
        if not np.all(converged):
            raise ValueError(f"image {int(np.argmin(converged))} gives no codes: is it finite?")
        return codes, latents

    def decode(self, codes: jax.Array | np.ndarray) -> jax.Array:
        """codes int32 [B, N] in any order -> images f32 [B, H, W, 3] in [-1, 1]."""
        return self._by_rows(self._decode, self._checked(codes))

    def _checked(self, codes: jax.Array | np.ndarray) -> jax.Array:
        codes, n, k = jnp.asarray(codes), self.config.model.num_codes, len(self.codebook)
        fits = codes.ndim == 2 and codes.shape[1] == n and len(codes)
        if not fits or not jnp.issubdtype(codes.dtype, jnp.integer):
            shape = f"[B, {n}], B at least 1"
            raise ValueError(f"codes are {codes.dtype} {codes.shape}: give integers {shape}")
        if int(codes.min()) < 0 or int(codes.max()) >= k:
            raise ValueError(f"codes range from {codes.min()} to {codes.max()}: give [0, {k})")
        return codes

    def _by_rows(self, function: Callable[..., Any], x: jax.Array) -> Any:
        # The rows are split over the devices, so their number is filled up to a multiple.
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
    ) -> jax.Array:
        """Makes new code sets from those of two images, see `sampling.recombine`.

        Args:
            codes_a: int [B, N], the images to change.
            codes_b: int [B, N], the images that codes are taken from.
            key: PRNG key.
            fraction: fraction of the differing codes that is exchanged, in [0, 1].
            lift: float32 [K, K], the result of `log_lift` for some real images. It makes better
                samples of a model whose codes depend on each other.

        Returns:
            int32 [B, N].

        Raises:
            ValueError: see `sampling.recombine`.
        """
        a, b = self._checked(codes_a), self._checked(codes_b)
        return sampling.recombine(a, b, self.codebook, key, fraction, self.kind, self.method, lift)

    def log_lift(self, codes: jax.Array | np.ndarray) -> jax.Array:
        """Computes which codes go together, f32 [K, K], from int [M, N]; see `sampling.log_lift`.

        Raises:
            ValueError: if the model is `positional`, or for codes that are not its own.
        """
        if self.kind == "positional":
            raise ValueError("positional codes mean nothing without their places: there is no lift")
        return sampling.log_lift(np.asarray(self._checked(codes)), len(self.codebook))

    def interpolate(self, codes_a: jax.Array, codes_b: jax.Array, steps: int) -> jax.Array:
        """From A to B by exchanging codes, see `sampling.interpolate`: -> int32 [steps, B, N]."""
        a, b = self._checked(codes_a), self._checked(codes_b)
        return sampling.interpolate(a, b, self.codebook, steps, self.kind, self.method)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `model.safetensors`, `config.json` and a model card; see `from_pretrained`.

        Raises:
            InputError: the directory is one in remote storage.
        """
        description = self.description
        for section, field in PATHS:
            if field in description["config"].get(section, {}):
                description["config"][section][field] = ""  # means nothing elsewhere
        write_pretrained(local_path(str(directory)), self.params, description)


def _encode(model: PIVQ, params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    result: Any = model.apply({"params": params}, images, method="encode")
    columns, converged, latents = result
    return sampling.canonical(columns, model.kind), converged, latents


def _decode(model: PIVQ, params: Any, codes: jax.Array) -> jax.Array:
    # Sums over a set depend on its order in their last bits: one order, one image.
    codes = sampling.canonical(codes, model.kind)
    images: Any = model.apply({"params": params}, codes, method="decode")
    return jnp.clip(images, -1.0, 1.0)


def load(workdir: str | Path, step: int | None = None) -> TrainedModel:
    """The model of a finished or running training, at its newest checkpoint or that of `step`.

    Raises:
        InputError: the workdir does not exist, holds no such checkpoint, or its codebook is not
            initialised yet.
    """
    workdir = as_path(str(workdir))
    origin = f"{workdir}/config.json"
    config = config_of_model(read_config(workdir), origin)
    mesh, shapes = make_mesh(), model_shapes(config, origin)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        state, progress = checkpoints.restore(
            {"step": jax.ShapeDtypeStruct((), jnp.int32), "ema_params": shapes}, mesh, step
        )
    progress.pop("data", None)  # which images it was trained on matters to this workdir alone
    step = int(state["step"])
    if step <= config.quantizer.init_step:
        raise InputError(
            f"{workdir} is at step {step}, but the codebook is initialised at step"
            f" {config.quantizer.init_step}: train on"
        )
    path = workdir / "metrics.json"
    metrics = json.loads(path.read_text()) if path.exists() else {}
    if metrics.get("step") != step:  # of earlier weights
        metrics = {}
    return TrainedModel(config, mesh, state["ema_params"], step, progress, metrics)


def from_pretrained(where: str | Path) -> TrainedModel:
    """The model that `save_pretrained` wrote.

    Args:
        where: a directory, or the id of a model on the Hugging Face hub, 'owner/name'.

    Raises:
        InputError: it does not exist, cannot be fetched, or is damaged.
    """
    params, description = read_pretrained(where)
    mesh, config = make_mesh(), config_of_model(description["config"], str(where))
    params = jax.device_put(params, replicated(mesh))
    step, progress, metrics = (description[name] for name in ("step", "progress", "metrics"))
    return TrainedModel(config, mesh, params, step, progress, metrics)
