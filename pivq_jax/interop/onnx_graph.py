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

from pivq_jax.common.errors import InputError
from pivq_jax.model.primitives import NORM_EPSILON

# The first version of the operators with GELU, which onnxruntime has since 1.17, and the version of
# the file format that belongs to it.
OPSET, IR_VERSION = 20, 9
MAX_BYTES = 2**31 - 2**20  # a file is one protocol buffer


def import_onnx() -> Any:
    """Returns the package `onnx`, which only writing ONNX files needs.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError("writing ONNX files needs the package onnx: pip install onnx") from error
    return onnx


class Graph:
    """Nodes and weights of a network, under construction.

    Values are referred to by name. All computation is in float32.

    Attributes:
        params: the parameters of the model, float32 arrays by path, such as 'encoder/norm/scale'.
        nodes: the nodes so far.
        weights: the weights and constants that they use, by name.

    Raises:
        InputError: if the package `onnx` is not installed.
    """

    def __init__(self, params: Mapping[str, np.ndarray]) -> None:
        self._onnx = import_onnx()
        self.params = params
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Appends a node with one output.

        Args:
            operator: ONNX's name of the operator.
            inputs: names of its inputs.
            name: name of the output; by default one is made.
            attributes: attributes of the operator.

        Returns:
            the name of its output.
        """
        name = name or f"{operator}_{len(self.nodes)}"
        node = self._onnx.helper.make_node(operator, inputs, [name], name, **attributes)
        self.nodes.append(node)
        return name

    def weight(self, path: str) -> str:
        """Returns the name of the parameter at a path, which becomes part of the file."""
        return self.constant(path, self.params[path])

    def constant(self, name: str, value: np.typing.ArrayLike) -> str:
        """Adds an array.

        Args:
            name: its name; the same name always stands for the same array.
            value: any array.

        Returns:
            the name.
        """
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

        Args:
            name: name of the network.
            source: name and shape of the input, without its first axis, which is the batch.
            target: the same of the output.
            metadata: texts to go with it.

        Raises:
            InputError: if the weights do not fit into one file.
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
    """Appends a convolution with bias.

    Args:
        graph: the graph.
        x: [B, C, H, W].
        path: path of the layer.
        stride: 1, with zeros around the image so that its size stays; or the size of the window,
            with none.

    Returns:
        [B, O, H / stride, W / stride].
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


def gelu(graph: Graph, x: str) -> str:
    """Appends GELU in its tanh form."""
    return graph.add("Gelu", x, approximate="tanh")


def attention(graph: Graph, x: str, context: str, path: str, heads: int) -> str:
    """Appends attention, `pivq_jax.model.layers.Attention`.

    Args:
        graph: the graph.
        x: [B, T, W], or [1, T, W] if all images share it.
        context: [B, S, W].
        path: path of the layer.
        heads: number of heads.

    Returns:
        [B, T, W].
    """
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
    """Appends a transformer block, `pivq_jax.model.layers.Block`.

    Args:
        graph: the graph.
        x: [B, T, W], or [1, T, W] if all images share it and there is a context.
        path: path of the block.
        heads: number of attention heads.
        context: [B, S, W] for cross-attention, which is skipped by default.
        last: if given, only so many of the last tokens are updated and returned.

    Returns:
        [B, T, W], or [B, `last`, W].
    """

    def kept(y: str) -> str:
        if last is None:
            return y
        ends = [graph.constant(f"index_{i}", np.array([i])) for i in (-last, 2**62, 1)]
        return graph.add("Slice", y, *ends)

    y = layer_norm(graph, x, f"{path}/self_attention_norm")
    x = graph.add("Add", kept(x), attention(graph, kept(y), y, f"{path}/self_attention", heads))
    if context:
        y = layer_norm(graph, x, f"{path}/cross_attention_norm")
        x = graph.add("Add", x, attention(graph, y, context, f"{path}/cross_attention", heads))
    y = dense(graph, layer_norm(graph, x, f"{path}/mlp_norm"), f"{path}/mlp/hidden")
    return graph.add("Add", x, dense(graph, gelu(graph, y), f"{path}/mlp/out"))
