"""What the runtime's blocked convolution would gain for weights that change every step.

ONNX Runtime lays out weights in blocks of 8 or 16 channels, but only constant ones, so a trained
net's convolutions miss its fastest kernel. Here the weight is blocked inside the graph by Reshape
and Transpose, and ``com.microsoft.nchwc`` is called by name. The domain is the runtime's own and
its layout depends on the processor: such a model is for a session only, never for a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime  # noqa: TID251 - asks the runtime for its layout, below kdnet
from onnx import TensorProto, helper, numpy_helper

BLOCKED = "com.microsoft.nchwc"
# Padding channels to whole blocks may add this share of work and still pay.
MOST_PADDING = 1.25
SPATIAL = 2
WIDEST_KERNEL = 11


def block_size() -> int:
    """Channels in a block: read from how the runtime lays out a constant weight; 0 if it does not.

    The optimised model of a Conv with 32 channels shows it: one blocked op, its weight padded to
    whole blocks from 8 outputs.
    """
    weight = numpy_helper.from_array(np.ones((8, 32, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = f"{folder}/probe.onnx"
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = onnx.load(options.optimized_model_filepath).graph
    convs = [node for node in found.node if node.op_type == "Conv" and node.domain == BLOCKED]
    shapes = {tensor.name: tensor.dims for tensor in found.initializer}
    return int(shapes[convs[0].input[1]][0]) if convs else 0


@dataclass
class _Rewriter:
    block: int
    shapes: dict[str, tuple[int, ...]]
    constants: frozenset[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    added: list[onnx.TensorProto] = field(default_factory=list)

    def padded(self, channels: int) -> int:
        return -(-channels // self.block) * self.block

    def ints(self, *values: int) -> str:
        name = f"blocked/constant_{len(self.added)}"
        self.added.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"blocked/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def suits(self, node: onnx.NodeProto) -> bool:
        """A Conv over two axes with a weight that changes and channels that fill blocks."""
        if node.op_type != "Conv" or node.domain or node.input[1] in self.constants:
            return False
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        x, w = (self.shapes[name] for name in node.input[:2])
        if len(w) != SPATIAL + 2 or attributes.get("group", 1) != 1 or max(w[2:]) > WIDEST_KERNEL:
            return False
        whole = self.padded(w[0]) * (self.padded(w[1]) if w[1] >= self.block else w[1])
        plain = w[1] < self.block or x[1] % 4 == 0
        return plain and w[0] >= self.block and whole <= MOST_PADDING * w[0] * w[1]

    def weight(self, w: str) -> str:
        """(O, C, K...) as [O/B][C/B][K...][B of C][B of O], or [O/B][C·K...][B] for few C."""
        o, c, *kernel = self.shapes[w]
        taps, b, rows = int(np.prod(kernel)), self.block, self.padded(o)
        columns = self.padded(c) if c >= b else c
        if (rows, columns) != (o, c):
            w = self.op("Pad", w, self.ints(0, 0, 0, 0, rows - o, columns - c, 0, 0))
        if c >= b:
            w = self.op("Reshape", w, self.ints(rows // b, b, columns // b, b, taps))
            w = self.op("Transpose", w, perm=[0, 2, 4, 3, 1])
        else:
            w = self.op("Reshape", w, self.ints(rows // b, b, c * taps))
            w = self.op("Transpose", w, perm=[0, 2, 1])
        return self.op("Reshape", w, self.ints(rows, columns, *kernel))

    def conv(self, node: onnx.NodeProto) -> None:
        """Put the blocked ops in the place of one Conv."""
        x, w, *bias = node.input
        o, c, *kernel = self.shapes[w]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        attributes |= {"kernel_shape": kernel, "group": 1}
        image = self.op("ReorderInput", x, domain=BLOCKED) if c >= self.block else x
        inputs = [image, self.weight(w)]
        for b in bias:
            extra = self.padded(o) - o
            inputs.append(self.op("Pad", b, self.ints(0, extra)) if extra else b)
        y = self.op("Conv", *inputs, domain=BLOCKED, **attributes)
        self.nodes.append(
            helper.make_node(
                "ReorderOutput", [y], node.output, name=node.name, domain=BLOCKED, channels=o
            )
        )


def blocked(model: onnx.ModelProto, block: int) -> tuple[onnx.ModelProto, int]:
    """The model with every suitable Conv blocked, and how many there were."""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
    }
    constants = frozenset(tensor.name for tensor in graph.initializer)
    rewriter = _Rewriter(block, shapes, constants)
    count = 0
    for node in graph.node:
        if rewriter.suits(node):
            rewriter.conv(node)
            count += 1
        else:
            rewriter.nodes.append(node)
    del graph.node[:]
    graph.node.extend(rewriter.nodes)
    graph.initializer.extend(rewriter.added)
    model.opset_import.append(helper.make_opsetid(BLOCKED, 1))
    return model, count
