"""The networks of a model, compiled for a mesh."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import (
    map_over_batch,
    over_batch,
    replicated,
    split_rows,
    to_first_device,
)
from pivq_jax.config.fields import Config
from pivq_jax.model.pivq import pivq_from_config
from pivq_jax.sampling import CodeSpace, Prior
from pivq_jax.sampling.completion import fit_visible


class Programs(NamedTuple):
    """Jitted functions, compiled once per batch size; batches are split over the devices."""

    # Parameters, images -> codes int32 [B, N], converged bool [B], latents float32 [B, N, D].
    encode: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
    decode: Callable[[Any, jax.Array], jax.Array]  # parameters, codes -> images
    # Parameters, a prior or None, codes, images, visible -> codes.
    fit: Callable[..., jax.Array]


@lru_cache(maxsize=16)
def programs_of(config: Config, mesh: Mesh) -> Programs:
    """Returns the programs of all models of a config on a mesh."""
    model = pivq_from_config(config, partial(map_over_batch, mesh=mesh))
    space, options, whole = CodeSpace.of(config), compiler_options(mesh), replicated(mesh)

    def apply(params: Any, x: jax.Array, method: str) -> Any:
        return model.apply({"params": params}, x, method=method)

    def encode(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        indices, converged, latents = apply(params, images, "encode")
        return space.canonical(indices), converged, latents

    def decode(params: Any, codes: jax.Array) -> jax.Array:
        # The last bits of a sum depend on the order of its terms; sorting makes the result unique.
        return jnp.clip(apply(params, space.canonical(codes), "decode"), -1.0, 1.0)

    def fit(
        params: Any, prior: Prior | None, codes: jax.Array, images: jax.Array, visible: jax.Array
    ) -> jax.Array:
        decode_vectors = partial(apply, params, method="decode_vectors")
        codebook = params["quantizer"]["codebook"]
        return fit_visible(space, codebook, decode_vectors, codes, images, visible, prior)

    jit = partial(
        jax.jit,
        in_shardings=(whole, over_batch(mesh)),
        out_shardings=whole,
        compiler_options=options,
    )
    return Programs(
        partial(_by_rows, jit(encode), mesh),
        partial(_by_rows, jit(decode), mesh),
        jax.jit(fit, compiler_options=options),
    )


def _by_rows(function: Callable[..., Any], mesh: Mesh, params: Any, x: jax.Array) -> Any:
    # Rows are split over the devices, so their number is padded to a multiple of the devices.
    fill = -x.shape[0] % mesh.size
    padded = jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)]) if fill else x
    result = to_first_device(function(params, split_rows(padded, mesh)))
    return jax.tree.map(lambda y: y[: x.shape[0]], result)
