"""What an ONNX file says of its arrays and nodes, found in its wire data."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from kdnet.weights.files import Buffer
from kdnet.weights.layout_onnx import Node
from kdnet.weights.wire import (
    FIXED32,
    LENGTH,
    VARINT,
    Field,
    WireError,
    fields,
    read_text,
    read_varint,
    signed64,
    varints,
)

# Field numbers of ModelProto, GraphProto, NodeProto, TensorProto and AttributeProto.
GRAPH, METADATA = 7, 14
NODE, INITIALIZER, SPARSE = 1, 5, 15
RAW_DATA = 9
_LENGTHS = frozenset((2, 3, 4, 6, GRAPH, 8, METADATA, 20, 25))
_NUMBERS = frozenset((1, 5))
# Damaged bytes may look like millions of empty ones.
_MOST = 1 << 18
_MOST_AXES = 32


@dataclass
class Array:
    """A TensorProto: what it says of itself, and the fields that have its numbers."""

    name: str = ""
    shape: list[int] = field(default_factory=list)
    kind: int = 0
    numbers: dict[int, Field] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    is_external: bool = False


@dataclass
class Model:
    """The arrays and the nodes of a graph in order, and the texts beside it."""

    arrays: list[Array] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    texts: dict[str, Field] = field(default_factory=dict)


def looks_like_model(data: Buffer) -> bool:
    """Whether the fields are those of a ModelProto, as far as they can be read."""
    seen = set()
    try:
        for found in fields(data, 0, len(data)):
            known = _NUMBERS if found.wire == VARINT else _LENGTHS
            if found.number not in known or found.wire not in (VARINT, LENGTH):
                return False
            seen.add(found.number)
    except WireError as error:
        # A file that is cut short, most likely inside the graph.
        with contextlib.suppress(WireError):
            seen.add(read_varint(data, error.at, len(data))[0] >> 3)
    return seen >= {1, GRAPH}


def read_model(data: Buffer) -> Model:
    """Find the arrays, the nodes and the texts of a model.

    Raises:
        WireError: The bytes are damaged.
    """
    model = Model()
    for found in fields(data, 0, len(data)):
        if (found.number, found.wire) == (GRAPH, LENGTH):
            _read_graph(data, found, model)
        elif (found.number, found.wire) == (METADATA, LENGTH):
            key, value = _pair(data, found)
            if value is not None:
                model.texts[key] = value
    return model


def _read_graph(data: Buffer, graph: Field, model: Model) -> None:
    for found in fields(data, graph.start, graph.stop):
        if found.wire != LENGTH:
            continue
        if found.number == NODE:
            model.nodes.append(_node(data, found))
        elif found.number == INITIALIZER:
            model.arrays.append(_array(data, found))
        elif found.number == SPARSE:
            raise WireError(found.at, "a sparse array, which kdnet does not read")
        if len(model.nodes) + len(model.arrays) > _MOST:
            raise WireError(found.at, f"more than {_MOST} nodes and arrays")


def _pair(data: Buffer, found: Field) -> tuple[str, Field | None]:
    """A StringStringEntryProto: its key, and where its value lies."""
    key, value = "", None
    for inner in fields(data, found.start, found.stop):
        if (inner.number, inner.wire) == (1, LENGTH):
            key = read_text(data, inner)
        elif (inner.number, inner.wire) == (2, LENGTH):
            value = inner
    return key, value


def _node(data: Buffer, node: Field) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    numbers: dict[str, float] = {}
    for found in fields(data, node.start, node.stop):
        if found.wire == LENGTH and found.number in texts:
            texts[found.number].append(read_text(data, found))
        elif (found.number, found.wire) == (5, LENGTH):
            numbers.update(_numbers(data, found))
    inputs, outputs, names, ops = texts.values()
    return Node("".join(ops[-1:]), "".join(names[-1:]), tuple(inputs), tuple(outputs), numbers)


def _numbers(data: Buffer, attribute: Field) -> Iterator[tuple[str, float]]:
    """The attribute's name and its value, where that is a number."""
    name, value = "", None
    for found in fields(data, attribute.start, attribute.stop):
        if (found.number, found.wire) == (1, LENGTH):
            name = read_text(data, found)
        elif (found.number, found.wire) == (2, FIXED32):
            value = struct.unpack("<f", data[found.start : found.stop])[0]
        elif (found.number, found.wire) == (3, VARINT):
            value = signed64(found.value)
    if value is not None:
        yield name, value


def _array(data: Buffer, tensor: Field) -> Array:
    array = Array()
    for found in fields(data, tensor.start, tensor.stop):
        if found.wire == VARINT and found.number in (2, 14):
            if found.number == 2:
                array.kind = found.value
            else:
                array.is_external = found.value == 1
        elif found.number == 1:
            _read_axes(data, found, array.shape)
        elif found.wire == LENGTH:
            _read_length(data, found, array)
        elif found.number in _TYPED_NUMBERS:
            raise WireError(found.at, "numbers that are not packed")
    return array


_TYPED_NUMBERS = (4, 5, 7, RAW_DATA, 10, 11)


def _read_length(data: Buffer, found: Field, array: Array) -> None:
    if found.number == 8:
        array.name = read_text(data, found)
    elif found.number == 13:
        key, value = _pair(data, found)
        array.external[key] = read_text(data, value) if value is not None else ""
    elif found.number in _TYPED_NUMBERS:
        if found.number in array.numbers:
            raise WireError(found.at, "numbers in more than one piece")
        array.numbers[found.number] = found


def _read_axes(data: Buffer, found: Field, shape: list[int]) -> None:
    # Ten bytes are the longest number; a damaged length may claim millions of axes.
    if len(shape) + (found.stop - found.start) // 10 > _MOST_AXES:
        raise WireError(found.at, f"a shape of more than {_MOST_AXES} axes")
    shape += varints(data, found)
    if len(shape) > _MOST_AXES:
        raise WireError(found.at, f"a shape of more than {_MOST_AXES} axes")
