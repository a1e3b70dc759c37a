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
from pivq_jax.interop.onnx_graph import (
    Graph,
    block,
    convolution,
    dense,
    gelu,
    layer_norm,
    part,
)
from pivq_jax.model.components import SMALLEST, Layout
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
    images, latents = (size, size, 3), (model.num_codes, model.code_dim)
    ends = ("images", images), ("latents", latents)
    if model.encoder == "components":
        component_latents(graph, Layout.of(model, size), size)
        return graph.to_bytes("encoder", *ends, metadata)

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
    return graph.to_bytes("encoder", *ends, metadata)


def decoder_bytes(params: Params, config: Config, metadata: dict[str, str]) -> bytes:
    """Returns the contents of an ONNX file with the decoder, `pivq_jax.model.decoder.Decoder`."""
    model, size = config.model, config.data.image_size
    width, side = model.width, size // model.patch_size
    graph = Graph(params)

    positions, vectors, pattern = positions_2d(side, side, width), "vectors", ""
    if model.encoder == "components":
        vectors, pattern = component_patterns(graph, Layout.of(model, size), size)
        # Patches of the pattern [B, 3, H, W], and their pixels with channels last, as rows.
        x = graph.add("Reshape", pattern, graph.shape(0, 3, side, model.patch_size, side, -1))
        x = graph.add("Transpose", x, perm=[0, 2, 4, 3, 5, 1])
        x = graph.add("Reshape", x, graph.shape(0, side**2, -1))
        x = dense(graph, x, "decoder/patches")
        x = graph.add("Add", x, graph.constant("decoder/positions", positions))
    else:
        queries = graph.params["decoder/queries"] + positions
        x = graph.constant("decoder/queries", queries[None])  # shared by all images
    codes = dense(graph, vectors, "decoder/codes")
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
        if pattern:
            y = graph.add("Reshape", pattern, graph.shape(0, 3, size // 2, 2, size // 2, 2))
            y = graph.add("Transpose", y, perm=[0, 3, 5, 1, 2, 4])
            y = graph.add("Reshape", y, graph.shape(0, 12, size // 2, size // 2))
            x = graph.add("Concat", x, y, axis=1)
        y = convolution(graph, gelu(graph, x), "decoder/output/conv")
        x = graph.add("Add", x, y)
        x = convolution(graph, gelu(graph, x), "decoder/output/pixels")
        x = graph.add("DepthToSpace", x, blocksize=2)
    if model.local_output:
        kernels = graph.weight("decoder/local_output/kernels")
        y = graph.add("MatMul", graph.add("Transpose", cells, perm=[1, 0, 2]), kernels)
        y = graph.add("Transpose", y, perm=[1, 0, 2])
        x = graph.add("Add", x, _pixels(graph, y, side, model.patch_size))
    if pattern:
        x = graph.add("Add", x, pattern)
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    limits = [graph.constant(f"limit_{i}", np.float32(i)) for i in (-1, 1)]
    graph.add("Clip", x, *limits, name="images")
    ends = ("vectors", (model.num_codes, model.code_dim)), ("images", (size, size, 3))
    return graph.to_bytes("decoder", *ends, metadata)


def component_latents(graph: Graph, layout: Layout, size: int) -> None:
    """Appends the encoder of principal components, `pivq_jax.model.components.Components`."""
    side, codes = layout.side, len(layout.places)
    deviations = np.maximum(graph.params["encoder/deviations"], SMALLEST)
    x = graph.add("Reshape", "images", graph.shape(0, side, size // side, side, size // side, 3))
    x = graph.add("ReduceMean", x, graph.constant("within", np.array([2, 4])), keepdims=0)
    x = graph.add("Reshape", x, graph.shape(0, -1))
    x = graph.add("Sub", x, graph.weight("encoder/mean"))
    x = graph.add("MatMul", x, graph.weight("encoder/basis"))
    x = graph.add("Pad", x, graph.constant("one_zero", np.array([0, 0, 0, 1])))
    x = graph.add("Gather", x, graph.constant("encoder/places", layout.places), axis=1)
    x = graph.add("Div", x, graph.constant("encoder/scales", deviations[layout.starts, None]))
    batch = graph.add("Shape", "images", start=0, end=1)
    shape = graph.add("Concat", batch, graph.shape(codes, layout.tags.shape[1]), axis=0)
    tags = graph.add("Expand", graph.constant("encoder/tags", layout.tags), shape)
    graph.add("Concat", x, tags, axis=2, name="latents")


def component_patterns(graph: Graph, layout: Layout, size: int) -> tuple[str, str]:
    """Appends `Components.patterns` of the vectors: [B, N, N length] and [B, 3, H, W]."""
    side, codes, bits = layout.side, len(layout.places), layout.tags.shape[1]
    deviations = np.maximum(graph.params["encoder/deviations"], SMALLEST)
    tags = part(graph, "vectors", layout.length, layout.length + bits, axis=2)
    signs = graph.add("Greater", tags, graph.constant("zero", np.float32(0)))
    signs = graph.add("Cast", signs, to=graph.float)
    powers = graph.constant("powers", 2.0 ** np.arange(bits, dtype=np.float32)[:, None])
    number = graph.add("MatMul", signs, powers)  # [B, N, 1]
    every = graph.constant("numbers", np.arange(codes, dtype=np.float32))
    owner = graph.add("Cast", graph.add("Equal", number, every), to=graph.float)
    last = graph.constant("last", np.array([3]))
    second = graph.constant("second", np.array([2]))
    values = part(graph, "vectors", 0, layout.length, axis=2)
    values = graph.add("Unsqueeze", values, second)
    scales = graph.constant("encoder/scales", deviations[layout.starts, None])
    values = graph.add("Mul", values, scales)
    spread = graph.add("Mul", graph.add("Unsqueeze", owner, last), values)
    divisors = np.append(deviations, np.float32(1))[layout.places]
    white = graph.add("Div", spread, graph.constant("encoder/divisors", divisors))
    white = graph.add("Reshape", white, graph.shape(0, 0, -1))
    one = graph.constant("first", np.array([1]))
    total = graph.add("ReduceSum", spread, one, keepdims=0)
    total = graph.add("Reshape", total, graph.shape(0, -1))
    total = graph.add("Gather", total, graph.constant("encoder/held", layout.held), axis=1)
    basis = graph.add("Transpose", graph.weight("encoder/basis"), perm=[1, 0])
    x = graph.add("Add", graph.add("MatMul", total, basis), graph.weight("encoder/mean"))
    x = graph.add("Clip", x, *(graph.constant(f"limit_{i}", np.float32(i)) for i in (-1, 1)))
    x = graph.add("Reshape", x, graph.shape(0, side, 1, side, 1, 3))
    factor = size // side
    repeats = graph.constant("repeats", np.array([1, 1, factor, 1, factor, 1]))
    x = graph.add("Reshape", graph.add("Tile", x, repeats), graph.shape(0, size, size, 3))
    return white, graph.add("Transpose", x, perm=[0, 3, 1, 2])


def _pixels(graph: Graph, x: str, side: int, factor: int) -> str:
    """Tokens [B, side^2, factor^2 C] of a grid to [B, C, side * factor, side * factor]."""
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    x = graph.add("Reshape", x, graph.shape(0, -1, side, side))
    return graph.add("DepthToSpace", x, blocksize=factor)
