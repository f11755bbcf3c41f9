"""From ops to ONNX: nodes, static types of their outputs, whole models.

Opset 21 and IR 10 are the newest pair for which ONNX Runtime loses no kernel on either provider:
from opset 22 on, CUDA has no MaxPool and the CPU no random op, and IR 10 is the first with
metadata on nodes, which carries every node's prototxt position.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.defs import OpSchema, get_schema
from onnx.shape_inference import infer_node_outputs

from kdnet.graph.tensor import Op, Tensor

OPSET = 21
IR_VERSION = 10
PRODUCER = "kdnet"
SOURCE_KEY = "kdnet.source"


def schema_of(op_type: str) -> OpSchema:
    """The standard's definition of an op at kdnet's opset."""
    return get_schema(op_type, OPSET, "")


def make_node(
    op_type: str,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attrs: Mapping[str, Any],
) -> onnx.NodeProto:
    """A NodeProto; absent optional inputs are empty names."""
    return helper.make_node(op_type, list(inputs), list(outputs), name=name, **attrs)


def tensor_type(dtype: np.dtype[Any], shape: Sequence[int] | None) -> onnx.TypeProto:
    """The ONNX type of an array."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), shape)


def infer_types(
    node: onnx.NodeProto, inputs: Iterable[Tensor | None]
) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Element type and static shape of each output, by the standard's own inference."""
    present = {tensor.name: tensor for tensor in inputs if tensor is not None}
    types = {name: tensor_type(tensor.dtype, tensor.shape) for name, tensor in present.items()}
    small = {
        name: numpy_helper.from_array(tensor.value, name)
        for name, tensor in present.items()
        if tensor.value is not None and _tells_a_shape(tensor.value)
    }
    found = infer_node_outputs(
        schema_of(node.op_type),
        node,
        types,
        small,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    return [_dtype_and_shape(node, found.get(name)) for name in node.output]


def _tells_a_shape(value: np.ndarray[Any, Any]) -> bool:
    """Whether an output's shape may depend on a constant: a vector of extents may be long."""
    return value.size <= 64 or (value.ndim == 1 and value.dtype == np.int64)


def _dtype_and_shape(
    node: onnx.NodeProto, found: onnx.TypeProto | None
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if found is None or not found.tensor_type.HasField("shape"):
        raise ValueError(f"{node.op_type} {node.name}: no static shape for an output")
    dims = found.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        raise ValueError(f"{node.op_type} {node.name}: an output axis is not static")
    dtype = helper.tensor_dtype_to_np_dtype(found.tensor_type.elem_type)
    return dtype, tuple(dim.dim_value for dim in dims)


def needed_ops(ops: Sequence[Op], outputs: Iterable[Tensor]) -> list[Op]:
    """The ops that the outputs depend on, in their order."""
    wanted = set(outputs)
    kept: list[Op] = []
    for op in reversed(ops):
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(tensor for tensor in op.inputs if tensor is not None)
    return kept[::-1]


def to_model(
    ops: Sequence[Op],
    inputs: Sequence[Tensor],
    outputs: Mapping[str, Tensor],
    *,
    name: str,
    initializers: Mapping[Tensor, np.ndarray[Any, Any] | None] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A model that computes ``outputs`` (name to tensor) from ``inputs``.

    Ops that no output needs are left out. Constants become initializers, and so do the outside
    tensors in ``initializers``: with their array, or with None as a declaration only (data
    location EXTERNAL), whose array is handed to the session.
    """
    kept = needed_ops(ops, outputs.values())
    renamed, aliases = _output_names(kept, outputs)
    nodes = [_node(op, renamed) for op in kept] + aliases
    given = initializers or {}
    constants = _used(kept, outputs.values(), given)
    graph = helper.make_graph(
        nodes,
        name or "net",
        [_value_info(tensor.name, tensor) for tensor in inputs],
        [_value_info(label, tensor) for label, tensor in outputs.items()],
        [_initializer(tensor, given.get(tensor, tensor.value)) for tensor in constants],
    )
    model = helper.make_model(
        graph,
        producer_name=PRODUCER,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def _output_names(
    ops: Sequence[Op], outputs: Mapping[str, Tensor]
) -> tuple[dict[Tensor, str], list[onnx.NodeProto]]:
    """New names for the tensors that are outputs; Identity nodes where one name is not enough."""
    produced = {tensor for op in ops for tensor in op.outputs}
    renamed: dict[Tensor, str] = {}
    aliases: list[onnx.NodeProto] = []
    for label, tensor in outputs.items():
        if tensor in produced and tensor not in renamed:
            renamed[tensor] = label
        else:
            origin = renamed.get(tensor, tensor.name)
            aliases.append(make_node("Identity", f"{label}/Identity", [origin], [label], {}))
    return renamed, aliases


def _node(op: Op, renamed: Mapping[Tensor, str]) -> onnx.NodeProto:
    node = make_node(
        op.type,
        op.name,
        ["" if t is None else renamed.get(t, t.name) for t in op.inputs],
        [renamed.get(t, t.name) for t in op.outputs],
        op.attrs,
    )
    if op.source:
        node.metadata_props.add(key=SOURCE_KEY, value=op.source)
    return node


def _used(ops: Sequence[Op], outputs: Iterable[Tensor], given: Container[Tensor]) -> list[Tensor]:
    """The constants and given tensors that are read, in the order of their first use."""
    read = [tensor for op in ops for tensor in op.inputs if tensor is not None]
    found = {t.name: t for t in [*read, *outputs] if t.value is not None or t in given}
    return list(found.values())


def _value_info(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, tensor_type(tensor.dtype, tensor.shape))


def _initializer(tensor: Tensor, value: np.ndarray[Any, Any] | None) -> onnx.TensorProto:
    if value is not None:
        return numpy_helper.from_array(np.asarray(value, tensor.dtype), tensor.name)
    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=helper.np_dtype_to_tensor_dtype(tensor.dtype),
        dims=tensor.shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    # The location is never opened: the session is given the array itself under this name.
    proto.external_data.add(key="location", value=f"session/{tensor.name}")
    return proto


def listing(model: onnx.ModelProto) -> str:
    """The graph as text, a node a line, with the shapes of what it makes: for golden files."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {v.name: v.type.tensor_type for v in [*inferred.value_info, *inferred.output]}

    def dims(name: str) -> str:
        shape = [str(dim.dim_value) for dim in shapes[name].shape.dim]
        return f"{name}({','.join(shape)})"

    lines = [f"{v.name}: input" for v in model.graph.input]
    lines += [
        f"{' '.join(dims(o) for o in node.output if o)} = {node.op_type}({', '.join(node.input)})"
        for node in model.graph.node
    ]
    return "\n".join(lines) + "\n"


def outside(ops: Sequence[Op], outputs: Iterable[Tensor]) -> list[Tensor]:
    """The tensors that the outputs need and no op makes, in the order of their first use."""
    wanted = list(outputs)
    kept = needed_ops(ops, wanted)
    made = {tensor for op in kept for tensor in op.outputs}
    read = [tensor for op in kept for tensor in op.inputs if tensor is not None]
    return list(dict.fromkeys(t for t in [*read, *wanted] if t.value is None and t not in made))
