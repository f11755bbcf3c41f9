"""Evaluates while importing what depends on shapes and constants alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.checker import ValidationError
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError

from kdnet.errors import GraphError, fail
from kdnet.graph.models.node import Node
from kdnet.graph.serialize import OPSET, infer_types, make_node

Array = NDArray[Any]

# The arithmetic of shapes and masks; anything else is left to the runtime.
FOLDED = frozenset(
    {
        *("Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "Ceil", "Clip", "Concat", "Cos"),
        *("ConstantOfShape", "CumSum", "Div", "Equal", "Exp", "Expand", "EyeLike", "Flatten"),
        *("Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot"),
        *("Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd"),
        *("ReduceSum", "Reshape", "Round", "ScatterElements", "ScatterND", "Sign", "Sin"),
        *("Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu"),
        *("Unsqueeze", "Where", "Xor"),
    }
)
# Above this many elements a constant is computed by the runtime, not stored in the graph.
LIMIT = 1 << 22


def folded(node: Node) -> Sequence[Array] | None:
    """The node's outputs where they are known, else None.

    Raises:
        GraphError: corrupt-model, where the node cannot work on the constants that it reads.
    """
    if node.op_type in ("Shape", "Size"):
        shape = np.array(node.input(0).shape, np.int64)
        if node.op_type == "Size":
            return [np.array(shape.prod(), np.int64)]
        return [shape[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]]
    known = all(tensor is None or tensor.value is not None for tensor in node.inputs)
    if node.op_type not in FOLDED or not known or _too_large(node):
        return None
    return _evaluated(node)


def _proto(node: Node) -> Any:
    names = ["" if tensor is None else tensor.name for tensor in node.inputs]
    return make_node(node.op_type, node.name, names, node.outputs, node.attrs)


def _too_large(node: Node) -> bool:
    try:
        found = infer_types(_proto(node), node.inputs)
    except (InferenceError, ValidationError, ValueError):
        return False
    return any(prod(shape) > LIMIT for _, shape in found)


def _evaluated(node: Node) -> Sequence[Array]:
    feeds = {tensor.name: tensor.value for tensor in node.inputs if tensor is not None}
    try:
        evaluator = ReferenceEvaluator(_proto(node), opsets={"": OPSET})
        with np.errstate(all="ignore"):
            found = evaluator.run(None, feeds)
    except Exception as error:  # the reference evaluator raises whatever numpy raises
        fail(GraphError, "corrupt-model", f"{node} fails on its constants: {error}")
    return [np.asarray(value) for value in found]
