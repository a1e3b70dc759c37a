"""Models as ONNX files, for runtimes without Python, such as a browser.

A model becomes three files, whose shapes are in docs/interop.md. `NAME.encoder.onnx` maps `images`
to `latents`, and `NAME.decoder.onnx` maps `vectors`, entries of the codebook, to `images`.
`NAME.codes.safetensors` holds the `codebook` and, if they are given, `training_codes`. Networks
compute in float32, for every `model.dtype`. The description of the model is in the metadata of each
file, under `pivq_jax`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pivq_jax.common.files import replace_together
from pivq_jax.common.params import Params
from pivq_jax.common.weights import pack_arrays
from pivq_jax.config.check import config_of_model
from pivq_jax.config.description import KEY
from pivq_jax.config.fields import Config
from pivq_jax.interop.onnx_graph import Graph, block, convolution, dense, gelu, layer_norm
from pivq_jax.model.layers import positions_2d
from pivq_jax.model.primitives import NORM_EPSILON


def onnx_paths(path: str | Path) -> tuple[Path, ...]:
    """Returns the files of a model `DIR/NAME.onnx`: its encoder, its decoder and its codes."""
    path, endings = Path(path), (".encoder.onnx", ".decoder.onnx", ".codes.safetensors")
    return tuple(path.with_name(path.stem + ending) for ending in endings)


def write_onnx(
    path: str | Path,
    params: Params,
    description: dict[str, Any],
    training_codes: np.ndarray | None = None,
) -> None:
    """Writes a model as an encoder, a decoder and its codes, which docs/interop.md describes.

    Args:
        path: `DIR/NAME.onnx`; the three files of `onnx_paths` are replaced if they exist.
        params: a tree of float32 arrays.
        description: JSON values, with at least `config`.
        training_codes: int [M, N], the codes of training images.

    Raises:
        InputError: if the package `onnx` is missing, the config describes no model, or a network
            is too large for one file.
        ValueError: if the description contains NaN or infinity.
    """
    config = config_of_model(description["config"], str(path))
    metadata = {KEY: json.dumps(description, allow_nan=False)}
    arrays = {"codebook": np.asarray(params["quantizer"]["codebook"])}
    if training_codes is not None:
        arrays["training_codes"] = np.asarray(training_codes, np.int32)
    contents = (
        encoder_bytes(params, config, metadata),
        decoder_bytes(params, config, metadata),
        pack_arrays(arrays, metadata),
    )
    names = (file.name for file in onnx_paths(path))
    replace_together(Path(path).parent, dict(zip(names, contents, strict=True)))


def encoder_bytes(params: Params, config: Config, metadata: dict[str, str]) -> bytes:
    """Returns the contents of an ONNX file with the encoder, `pivq_jax.model.encoder.Encoder`."""
    model, size = config.model, config.data.image_size
    width, side = model.width, size // model.patch_size
    graph = Graph(params)

    x = graph.add("Transpose", "images", perm=[0, 3, 1, 2])
    x = convolution(graph, x, "encoder/patches", stride=model.patch_size)
    x = graph.add("Reshape", x, graph.shape(0, width, -1))
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    positions = graph.constant("encoder/positions", positions_2d(side, side, width))
    x = graph.add("Add", x, positions)

    batch = graph.add("Shape", "images", start=0, end=1)
    shape = graph.add("Concat", batch, graph.shape(model.num_codes, width), axis=0)
    queries = graph.add("Expand", graph.weight("encoder/queries"), shape)
    x = graph.add("Concat", x, queries, axis=1)
    for i in range(model.encoder_depth):
        last = model.num_codes if i == model.encoder_depth - 1 else None
        x = block(graph, x, f"encoder/block_{i}", model.heads, last=last)

    x = dense(graph, layer_norm(graph, x, "encoder/norm"), "encoder/latents")
    one = graph.constant("encoder/unit/scale", np.ones(model.code_dim, np.float32))
    graph.add("LayerNormalization", x, one, epsilon=NORM_EPSILON, name="latents")
    images, latents = (size, size, 3), (model.num_codes, model.code_dim)
    return graph.to_bytes("encoder", ("images", images), ("latents", latents), metadata)


def decoder_bytes(params: Params, config: Config, metadata: dict[str, str]) -> bytes:
    """Returns the contents of an ONNX file with the decoder, `pivq_jax.model.decoder.Decoder`."""
    model, size = config.model, config.data.image_size
    width, side = model.width, size // model.patch_size
    graph = Graph(params)

    queries = graph.params["decoder/queries"] + positions_2d(side, side, width)
    x = graph.constant("decoder/queries", queries[None])  # shared by all images
    codes = dense(graph, "vectors", "decoder/codes")
    if config.quantizer.kind == "positional":
        codes = graph.add("Add", codes, graph.weight("decoder/places"))
    for i in range(model.set_depth):
        codes = block(graph, codes, f"decoder/set_block_{i}", model.heads)
    codes = layer_norm(graph, codes, "decoder/set_norm")
    for i in range(model.decoder_depth):
        x = block(graph, x, f"decoder/block_{i}", model.heads, codes)
    cells = x = layer_norm(graph, x, "decoder/norm")

    if model.output == "patch":
        x = dense(graph, x, "decoder/output/pixels")
        x = _pixels(graph, x, side, model.patch_size)
    else:
        x = dense(graph, x, "decoder/output/expand")
        x = _pixels(graph, x, side, model.patch_size // 2)
        y = convolution(graph, gelu(graph, x), "decoder/output/conv")
        x = graph.add("Add", x, y)
        x = convolution(graph, gelu(graph, x), "decoder/output/pixels")
        x = graph.add("DepthToSpace", x, blocksize=2)
    if model.local_output:
        kernels = graph.weight("decoder/local_output/kernels")
        y = graph.add("MatMul", graph.add("Transpose", cells, perm=[1, 0, 2]), kernels)
        y = graph.add("Transpose", y, perm=[1, 0, 2])
        x = graph.add("Add", x, _pixels(graph, y, side, model.patch_size))
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    limits = [graph.constant(f"limit_{i}", np.float32(i)) for i in (-1, 1)]
    graph.add("Clip", x, *limits, name="images")
    vectors, images = (model.num_codes, model.code_dim), (size, size, 3)
    return graph.to_bytes("decoder", ("vectors", vectors), ("images", images), metadata)


def _pixels(graph: Graph, x: str, side: int, factor: int) -> str:
    """Tokens [B, side^2, factor^2 C] of a grid to [B, C, side * factor, side * factor]."""
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    x = graph.add("Reshape", x, graph.shape(0, -1, side, side))
    return graph.add("DepthToSpace", x, blocksize=factor)
