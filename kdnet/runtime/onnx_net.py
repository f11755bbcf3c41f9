"""A net made of an ONNX model, so that a model file can be named where a net is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from kdnet.errors import GraphError, NetError, fail
from kdnet.graph.models import Model, read_model
from kdnet.schema import Located, SourceMap, read_net
from kdnet.schema import kdnet_pb2 as pb

# How a serialised ModelProto begins: its ir_version, a varint. No text begins so.
MODEL_START = b"\x08"


def is_model(path: str) -> bool:
    """Whether a file holds an ONNX model rather than a prototxt, by its first byte."""
    try:
        with Path(path).open("rb") as file:
            return file.read(1) == MODEL_START
    except OSError:
        return False


def read_net_or_model(path: str) -> Located[pb.NetParameter]:
    """A prototxt's net, or a deploy net around an ONNX model.

    Raises:
        SchemaError: the faults of a prototxt.
        NetError: model-as-net: a model that needs a prototxt of its own to say what is open; and
            what :func:`kdnet.graph.models.read_model` finds.
    """
    if not is_model(path):
        return read_net(path)
    try:
        model = read_model(path)
    except GraphError as error:
        raise NetError(*error.diagnostics) from None
    return Located(_around(path, model), SourceMap.empty())


def _around(path: str, model: Model) -> pb.NetParameter:
    """An Input layer and an ONNX layer, named after the file."""
    name = Path(path).stem
    if len(model.inputs) != 1:
        _refuse(path, f"it has {len(model.inputs)} inputs")
    declared = model.inputs[0]
    if not declared.shape or not all(isinstance(size, int) for size in declared.shape[1:]):
        _refuse(path, f'the shape of its input "{declared.name}" is open')
    net = pb.NetParameter(name=name)
    data = net.layer.add(name="data", type="Input", top=["data"])
    data.input_param.shape.add().dim.extend([1, *map(int, declared.shape[1:])])
    layer = net.layer.add(name=name, type="ONNX", bottom=["data"], top=[name])
    layer.onnx_param.model = path
    scores = before_softmax(model)
    if scores:
        layer.onnx_param.output.append(scores)
    return net


def before_softmax(model: Model) -> str:
    """What the Softmax that ends a model reads; "" where none does."""
    made = (node for node in model.graph.node if model.outputs[0] in node.output)
    last = next(made, None)
    return str(last.input[0]) if last is not None and last.op_type == "Softmax" else ""


def _refuse(path: str, why: str) -> NoReturn:
    text = f'"{path}" is an ONNX model, and {why}'
    hint = ("write a prototxt with a layer of type ONNX around it, and name that",)
    fail(NetError, "model-as-net", text, help=hint)
