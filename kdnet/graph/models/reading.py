"""Reading an .onnx file: what it declares, checked, pruned to what is wanted, at kdnet's opset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner, version_converter

from kdnet.errors import GraphError, did_you_mean, fail
from kdnet.graph.models.tensors import SUPPORTED, Held
from kdnet.graph.serialize import OPSET

STANDARD = ("", "ai.onnx")
# Inputs, by their place, whose numbers say how an op works: they are not weights.
SETTINGS = {"Clip": (1, 2), "Dropout": (1,), "OneHot": (2,), "Pad": (2,), "Pow": (1,)}
# Inputs, by their place, on which a shape depends: nothing that leads to them is a weight.
SHAPES = {
    **dict.fromkeys(("ConstantOfShape",), (0,)),
    **dict.fromkeys(("Expand", "OneHot", "Reshape", "Tile", "TopK"), (1,)),
    **dict.fromkeys(("Pad",), (1, 3)),
    **dict.fromkeys(("Range",), (0, 1, 2)),
    **dict.fromkeys(("Resize", "Upsample"), (1, 2, 3)),
    **dict.fromkeys(("Slice",), (1, 2, 3, 4)),
}


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it: an axis is a size, or a name, or "" where it is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Model:
    """A model at kdnet's opset, pruned to the wanted outputs.

    ``weights`` are its float arrays with axes, in the file's order; every other array is a
    constant among ``graph.initializer``. The weights are declared as inputs of ``graph``.
    """

    path: str
    graph: onnx.GraphProto
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]
    weights: tuple[Held, ...]


def read_model(path: str, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Model:
    """Read a model and make it ready to be emitted.

    Args:
        path: The .onnx file.
        inputs: Names of its inputs, in the order wanted; all of them by default.
        outputs: Names of tensors to compute, inner ones too; its outputs by default.

    Raises:
        GraphError: not-a-model, corrupt-model, unsafe-model-path, unsupported-model,
            unknown-tensor, model-conversion.
    """
    try:
        return _read(path, inputs, outputs)
    except (LookupError, TypeError, ValueError) as error:
        # Such as a name whose bytes are no text, which protobuf finds when it is looked at.
        fail(GraphError, "corrupt-model", f"it is damaged: {error}")


def _read(path: str, inputs: Sequence[str], outputs: Sequence[str]) -> Model:
    proto = _parsed(path)
    held = _taken_out(proto, Path(path).parent)
    _check(proto)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    declared = _declared_inputs(proto.graph, {array.name for array in held})
    wanted = tuple(outputs) or tuple(value.name for value in proto.graph.output)
    arrays = {tensor.name for tensor in (*proto.graph.initializer, *(a.proto for a in held))}
    _check_names("output", wanted, _made(proto.graph) | declared.keys() | arrays)
    _check_names("input", inputs, declared)
    _prune(proto.graph, wanted)
    _check_domains(proto.graph)
    read = _names_read(proto.graph.node) | set(wanted)
    kept = [array for array in held if array.name in read]
    fed = tuple(inputs) or tuple(name for name in declared if name in read)
    missing = [name for name in declared if name in read and name not in fed]
    if missing:
        text = f'the wanted outputs need input "{missing[0]}" too'
        fail(GraphError, "unknown-tensor", text, help=("name every input that they need",))
    graph = _converted(proto, wanted).graph
    return Model(path, graph, tuple(declared[name] for name in fed), wanted, tuple(kept))


def _parsed(path: str) -> onnx.ModelProto:
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except OSError as error:
        text = f'cannot read "{path}": {error.strerror or error}'
        fail(GraphError, "not-a-model", text)
    except Exception:  # protobuf's own classes, which only kdnet.schema imports
        fail(GraphError, "not-a-model", f'"{path}" is not an ONNX model, or is cut short')
    if not proto.opset_import or not proto.graph.output:
        fail(GraphError, "not-a-model", f'"{path}" is not an ONNX model: it has no graph')
    return proto


def _taken_out(proto: onnx.ModelProto, folder: Path) -> list[Held]:
    """The weights, which are declared as inputs instead; other arrays are put inside the file."""
    graph = proto.graph
    if graph.sparse_initializer:
        fail(GraphError, "unsupported-model", "its sparse arrays are not supported")
    settings = _settings(graph)
    known = {value.name for value in graph.input}
    weights, constants = [], []
    for tensor in graph.initializer:
        array = Held(tensor, folder)
        array.check()
        if array.is_float and array.shape and array.name not in settings:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            weights.append(Held(copy, folder))
            if array.name not in known:
                kind = helper.make_tensor_value_info(array.name, tensor.data_type, tensor.dims)
                graph.input.append(kind)
        else:
            constants.append(_with_bytes(array))
    del graph.initializer[:]
    graph.initializer.extend(constants)
    for tensor in _tensors(graph.node):
        array = Held(tensor, folder)
        array.check()
        tensor.CopyFrom(_with_bytes(array))
    return weights


def _with_bytes(array: Held) -> onnx.TensorProto:
    """The array with its bytes inside."""
    if array.proto.data_location != onnx.TensorProto.EXTERNAL:
        return array.proto
    return onnx.numpy_helper.from_array(array.read(), array.name)


def _settings(graph: onnx.GraphProto) -> set[str]:
    """Names that lead to a shape, or that are read as settings and as nothing else."""
    settings: set[str] = set()
    others: set[str] = set()
    shaping: set[str] = set()
    for node in reversed(graph.node):
        for place, name in enumerate(node.input):
            if place in SHAPES.get(node.op_type, ()):
                shaping.add(name)
            (settings if place in SETTINGS.get(node.op_type, ()) else others).add(name)
        if shaping.intersection(node.output) and node.op_type not in ("Shape", "Size"):
            shaping |= _names_read([node])
    return (settings - others) | shaping


def _tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """The arrays among the attributes of nodes, those inside branches too."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            for graph in _graphs(attribute):
                yield from graph.initializer
                yield from _tensors(graph.node)


def _graphs(attribute: onnx.AttributeProto) -> Sequence[onnx.GraphProto]:
    return [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs


def _check(proto: onnx.ModelProto) -> None:
    """By ONNX's own checker: the order of nodes, their attributes, names, opsets."""
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        fail(GraphError, "corrupt-model", f"it is no valid model: {reason}")


def _declared_inputs(graph: onnx.GraphProto, weights: set[str]) -> dict[str, Declared]:
    held = weights | {tensor.name for tensor in graph.initializer}
    return {value.name: _declared(value) for value in graph.input if value.name not in held}


def _declared(value: onnx.ValueInfoProto) -> Declared:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in SUPPORTED:
        text = f'input "{value.name}" is not an array of numbers that kdnet has'
        fail(GraphError, "unsupported-model", text)
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim]
    return Declared(value.name, dtype, tuple(dims))


def _made(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output if name}


def _check_names(word: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            listed = ", ".join(f'"{one}"' for one in known) if word == "input" else ""
            hints = did_you_mean(name, known) or ((f"it has {listed}",) if listed else ())
            what = "input" if word == "input" else "tensor"
            fail(GraphError, "unknown-tensor", f'the model has no {what} "{name}"', help=hints)


def _names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Every name that the nodes read, from inside their branches too."""
    found: set[str] = set()
    for node in nodes:
        found.update(name for name in node.input if name)
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                found |= _names_read(graph.node) | {value.name for value in graph.output}
    return found


def _prune(graph: onnx.GraphProto, wanted: Sequence[str]) -> None:
    """Keep the nodes that the wanted tensors need, and make these the outputs."""
    read, kept = set(wanted), []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            kept.append(node)
            read |= _names_read([node])
    types = {value.name: value for value in [*graph.input, *graph.value_info, *graph.output]}
    outputs = [types.get(name) or onnx.ValueInfoProto(name=name) for name in wanted]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in outputs]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.extend(copies)


def _check_domains(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.domain not in STANDARD:
            text = f'node "{node.name}" ({node.op_type}) is of "{node.domain}"'
            hint = "only ops of ai.onnx are emitted, so that the net runs wherever ONNX runs"
            fail(GraphError, "unsupported-model", text, help=(hint,))


def _converted(proto: onnx.ModelProto, wanted: Sequence[str]) -> onnx.ModelProto:
    """The model at kdnet's opset."""
    [version] = [found.version for found in proto.opset_import if found.domain in STANDARD]
    if version == OPSET:
        return proto
    kept = [found for found in proto.opset_import if found.domain in STANDARD]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    if not all(value.HasField("type") for value in proto.graph.output):
        proto = _typed(proto, wanted)
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter's own classes, and RuntimeError
        reason = str(error).strip().partition("\n")[0]
        text = f"it cannot be converted from opset {version} to {OPSET}: {reason}"
        fail(GraphError, "model-conversion", text, help=(f"export it with opset {OPSET}",))


def _typed(proto: onnx.ModelProto, wanted: Sequence[str]) -> onnx.ModelProto:
    """With the types of its outputs, which inner tensors may lack."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    types = {value.name: value for value in [*inferred.value_info, *inferred.output]}
    del proto.graph.output[:]
    proto.graph.output.extend(types.get(name, onnx.ValueInfoProto(name=name)) for name in wanted)
    return proto
