"""Graphs of ONNX operators for the layers of `pivq_jax.model`.

A `Graph` collects the nodes of one network in the order of computation. The functions of this
module append one layer each, under the names and with the layouts of the Flax parameters, so that a
weight in an ONNX file has the name that it has here: `encoder/block_0/mlp/hidden/kernel`.

They are written by hand rather than derived from JAX's trace of the model. There are only six, they
need no other package than `onnx`, and use the operators for which runtimes have fast kernels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from pivq_jax.common.errors import InputError
from pivq_jax.common.params import Params
from pivq_jax.model.primitives import NORM_EPSILON

# The first version of the operators with GELU, which onnxruntime has since 1.17, and the version of
# the file format that belongs to it.
OPSET, IR_VERSION = 20, 9
MAX_BYTES = 2**31 - 2**20  # a file is one protocol buffer


def import_onnx() -> Any:
    """Returns the package `onnx`, which only writing ONNX files needs."""
    try:
        import onnx
    except ImportError as error:
        raise InputError("writing ONNX files needs the package onnx: pip install onnx") from error
    return onnx


class Graph:
    """Nodes and weights of a network, under construction, for a model with these parameters.

    Values are referred to by name, parameters by path, such as 'encoder/norm/scale'.
    """

    def __init__(self, params: Params) -> None:
        self._onnx = import_onnx()
        flat = traverse_util.flatten_dict(params, sep="/")
        self.params = {path: np.asarray(value, np.float32) for path, value in flat.items()}
        self.float = self._onnx.TensorProto.FLOAT  # the type to cast to
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Appends a node with one output, and returns its name, which by default is made."""
        name = name or f"{operator}_{len(self.nodes)}"
        node = self._onnx.helper.make_node(operator, inputs, [name], name, **attributes)
        self.nodes.append(node)
        return name

    def weight(self, path: str) -> str:
        """Returns the name of the parameter at a path, which becomes part of the file."""
        return self.constant(path, self.params[path])

    def constant(self, name: str, value: np.typing.ArrayLike) -> str:
        """Adds an array and returns its name; the same name always stands for the same array."""
        self.weights[name] = np.array(value, order="C")
        return name

    def shape(self, *sizes: int) -> str:
        """Returns the name of a constant shape for 'Reshape': 0 keeps a size, -1 infers it."""
        name = "shape_" + "_".join(map(str, sizes))
        return self.constant(name, np.array(sizes, np.int64))

    def to_bytes(
        self,
        name: str,
        source: tuple[str, tuple[int, ...]],
        target: tuple[str, tuple[int, ...]],
        metadata: Mapping[str, str],
    ) -> bytes:
        """Returns the contents of a file with this network.

        Input and output are named, with their shapes without the first axis, which is the batch.
        """
        size = sum(value.nbytes for value in self.weights.values())
        if size > MAX_BYTES:
            raise InputError(
                f"the {name} has {size:,} bytes of weights, and an ONNX file holds at most"
                f" {MAX_BYTES:,}: export a smaller model"
            )
        onnx, helper = self._onnx, self._onnx.helper
        ends = [
            [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, ["batch", *shape])]
            for end, shape in (source, target)
        ]
        weights = [onnx.numpy_helper.from_array(value, key) for key, value in self.weights.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, name, *ends, weights),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="pivq_jax",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)


def dense(graph: Graph, x: str, path: str) -> str:
    """Appends a dense layer with bias: from x [..., I] to [..., O]."""
    product = graph.add("MatMul", x, graph.weight(f"{path}/kernel"))
    return graph.add("Add", product, graph.weight(f"{path}/bias"))


def convolution(graph: Graph, x: str, path: str, stride: int = 1) -> str:
    """Appends a convolution of x [B, C, H, W] with bias.

    With stride 1, there are zeros around the image so that its size stays; another stride is the
    size of the window, and there are none.
    """
    kernel = graph.params[f"{path}/kernel"]  # [height, width, in, out]
    window = kernel.shape[:2]
    margin = [0] * 4 if stride > 1 else [side // 2 for side in window] * 2
    weight = graph.constant(f"{path}/kernel", kernel.transpose(3, 2, 0, 1))
    strides = [stride, stride]
    bias = graph.weight(f"{path}/bias")
    return graph.add("Conv", x, weight, bias, kernel_shape=window, strides=strides, pads=margin)


def layer_norm(graph: Graph, x: str, path: str) -> str:
    """Appends a norm over the last axis with learned scale and bias."""
    scale, bias = graph.weight(f"{path}/scale"), graph.weight(f"{path}/bias")
    return graph.add("LayerNormalization", x, scale, bias, epsilon=NORM_EPSILON)


def part(graph: Graph, x: str, start: int, end: int, axis: int) -> str:
    """Appends what is in the positions `start` to `end` - 1 of an axis of x."""
    ends = [graph.constant(f"index_{i}", np.array([i])) for i in (start, end, axis)]
    return graph.add("Slice", x, *ends)


def gelu(graph: Graph, x: str) -> str:
    """Appends GELU in its tanh form."""
    return graph.add("Gelu", x, approximate="tanh")


def attention(graph: Graph, x: str, context: str, path: str, heads: int) -> str:
    """Appends attention, `pivq_jax.model.layers.Attention`, with its shapes."""
    width = len(graph.params[f"{path}/query/bias"])

    def projected(y: str, name: str) -> str:
        y = dense(graph, y, f"{path}/{name}")
        return graph.add("Reshape", y, graph.shape(0, 0, heads, width // heads))

    query = layer_norm(graph, projected(x, "query"), f"{path}/query_norm")
    query = graph.add("Transpose", query, perm=[0, 2, 1, 3])
    key = layer_norm(graph, projected(context, "key"), f"{path}/key_norm")
    key = graph.add("Transpose", key, perm=[0, 2, 3, 1])
    value = graph.add("Transpose", projected(context, "value"), perm=[0, 2, 1, 3])
    factor = graph.constant(f"{path}/factor", np.float32((width // heads) ** -0.5))
    logits = graph.add("Mul", graph.add("MatMul", query, key), factor)
    y = graph.add("MatMul", graph.add("Softmax", logits, axis=-1), value)
    y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
    return dense(graph, graph.add("Reshape", y, graph.shape(0, 0, width)), f"{path}/out")


def block(
    graph: Graph, x: str, path: str, heads: int, context: str = "", last: int | None = None
) -> str:
    """Appends a transformer block, `pivq_jax.model.layers.Block`, with its shapes."""

    def kept(y: str) -> str:
        return y if last is None else part(graph, y, -last, 2**62, axis=1)

    y = layer_norm(graph, x, f"{path}/self_attention_norm")
    x = graph.add("Add", kept(x), attention(graph, kept(y), y, f"{path}/self_attention", heads))
    if context:
        y = layer_norm(graph, x, f"{path}/cross_attention_norm")
        x = graph.add("Add", x, attention(graph, y, context, f"{path}/cross_attention", heads))
    y = dense(graph, layer_norm(graph, x, f"{path}/mlp_norm"), f"{path}/mlp/hidden")
    return graph.add("Add", x, dense(graph, gelu(graph, y), f"{path}/mlp/out"))
