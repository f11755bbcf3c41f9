"""Caffe's own weight files: a binary NetParameter, whatever the file's ending.

Three generations are in use: V2 (``layer``, field 100), V1 (``layers``, field 2) and V0, where a
V1 layer only wraps the layer that holds the blobs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from kdnet.errors import SchemaError, WeightsError, fail
from kdnet.schema import SourceMap, upgrade_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.blobs import decode_blob
from kdnet.weights.files import Buffer, atomic_write, open_buffer
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.wire import (
    LENGTH,
    VARINT,
    Field,
    WireError,
    fields,
    read_varint,
    write_tag,
    write_varint,
)

_LONGEST_NAME_BYTES = 1 << 16
_NET_NAME, _V1_LAYERS, _V2_LAYERS = 1, 2, 100
# Number and wire type of the fields that a NetParameter can begin with.
_FIRST_FIELDS = frozenset(
    {(number, LENGTH) for number in (1, 2, 3, 4, 6, 8, 100)}
    | {(number, VARINT) for number in (4, 5, 7)}
)
_V0_LAYER = 1


class Numbers(NamedTuple):
    """The field numbers of one generation of layer messages."""

    name: int
    type: int
    blobs: int


NUMBERS = {"V0": Numbers(1, 2, 50), "V1": Numbers(4, 5, 6), "V2": Numbers(1, 2, 7)}


class WireLayer(NamedTuple):
    """One layer of a file: where its message and its blobs lie; nothing is decoded yet.

    ``outer`` is the field of the net, ``inner`` the field whose payload has name and blobs: the
    same one but for V0.
    """

    generation: str
    outer: Field
    inner: Field
    name: str
    type: str
    blobs: tuple[Field, ...]


def read_layer(data: Buffer, outer: Field) -> WireLayer:
    """Find the name, the type and the blobs in the payload of a layer's field.

    Raises:
        WireError: The bytes are damaged.
    """
    generation, inner = "V2", outer
    if outer.number == _V1_LAYERS:
        generation = "V1"
        for found in fields(data, outer.start, outer.stop):
            if found.number == _V0_LAYER and found.wire == LENGTH:
                generation, inner = "V0", found
    numbers = NUMBERS[generation]
    name = ""
    kind: str | int = ""
    blobs = []
    for found in fields(data, inner.start, inner.stop):
        if found.number == numbers.name and found.wire == LENGTH:
            name = _text(data, found)
        elif found.number == numbers.type:
            kind = _text(data, found) if found.wire == LENGTH else found.value
        elif found.number == numbers.blobs and found.wire == LENGTH:
            blobs.append(found)
    todays = str(kind) if generation == "V2" else _todays_type(generation, kind)
    return WireLayer(generation, outer, inner, name, todays, tuple(blobs))


def damaged(path: str, size_bytes: int, error: WireError, where: str) -> NoReturn:
    """Raise ``truncated-weights`` or ``corrupt-weights`` for a fault found in the bytes."""
    place = f"{where} at byte {error.at} of {size_bytes}: {error.reason}"
    if error.truncated:
        fail(
            WeightsError,
            "truncated-weights",
            f'"{path}" is cut short: {place}',
            help=("copy or download the file again",),
        )
    fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: {place}')


@weight_format("caffemodel", sniff=None)
def read_caffemodel(path: str) -> Stream:
    """Read a binary NetParameter of any generation.

    Raises:
        WeightsError: as :func:`open_net`; a damaged layer is found when it is reached.
    """
    data, net_name, found = open_net(path)
    return Stream(net_name, _decode(path, data, found))


def open_net(path: str) -> tuple[Buffer, str, tuple[Field, ...]]:
    """The bytes of a binary NetParameter, its net's name, and the fields that hold its layers.

    Raises:
        WeightsError: ``truncated-weights``, ``corrupt-weights`` (both with the byte's offset) or
            ``foreign-weights`` for a message that has no layers.
    """
    data = open_buffer(path)
    net_name = ""
    found = []
    try:
        for field in fields(data, 0, len(data)):
            if (field.number, field.wire) == (_NET_NAME, LENGTH):
                net_name = _text(data, field)
            elif field.number in (_V1_LAYERS, _V2_LAYERS) and field.wire == LENGTH:
                found.append(field)
    except WireError as error:
        if not _may_be_net(data):
            _foreign(path, "its first bytes are not those of a Caffe net")
        damaged(path, len(data), error, f"layer {len(found)}")
    if not found:
        _foreign(path, "it is not a Caffe net, or a net without layers")
    return data, net_name, tuple(found)


def _may_be_net(data: Buffer) -> bool:
    try:
        tag, _ = read_varint(data, 0, len(data))
    except WireError:
        return False
    return (tag >> 3, tag & 7) in _FIRST_FIELDS


def _foreign(path: str, reason: str) -> NoReturn:
    fail(WeightsError, "foreign-weights", f'"{path}" is not a weight file: {reason}')


def _decode(path: str, data: Buffer, found: Sequence[Field]) -> Iterator[LayerBlobs]:
    for index, outer in enumerate(found):
        where = f"layer {index}"
        try:
            layer = read_layer(data, outer)
            where = f'layer {index} ("{layer.name}")'
            decoded = [decode_blob(data, blob.start, blob.stop) for blob in layer.blobs]
        except WireError as error:
            damaged(path, len(data), error, where)
        yield LayerBlobs(
            layer.name,
            layer.type,
            tuple(values for values, _ in decoded),
            tuple(stored for _, stored in decoded),
        )


def _text(data: Buffer, found: Field) -> str:
    if found.stop - found.start > _LONGEST_NAME_BYTES:
        raise WireError(found.at, f"a name of {found.stop - found.start} bytes")
    try:
        return data[found.start : found.stop].decode()
    except UnicodeDecodeError:
        raise WireError(found.at, "a name that is not UTF-8") from None


@functools.lru_cache(maxsize=256)
def _todays_type(generation: str, old: str | int) -> str:
    """The Caffe type of an old layer's type; empty for one that Caffe never had."""
    net = pb.NetParameter()
    layer = net.layers.add()
    try:
        if generation == "V0":
            layer.layer.type = str(old)
        else:
            layer.type = old  # type: ignore[assignment]  # an enum's number
        upgraded, _ = upgrade_net(net, SourceMap.empty())
    except (SchemaError, TypeError, ValueError):
        return ""
    return upgraded.layer[0].type if upgraded.layer else ""


def write_caffemodel(
    path: str | os.PathLike[str], layers: Sequence[LayerBlobs], *, net_name: str = ""
) -> None:
    """Write layers and their blobs as a binary NetParameter (V2), atomically.

    float32 blobs become packed ``data``, float64 blobs packed ``double_data``, each with a
    BlobShape; the same layers always give the same bytes. Protobuf readers, Caffe's among them,
    refuse messages of 2 GiB and more; kdnet reads them.

    Raises:
        WeightsError: ``cannot-write``; the file that was there is still whole.
        TypeError: A blob is neither float32 nor float64.
    """
    with atomic_write(path) as file:
        file.writelines(_encode_net(layers, net_name))


def encoded_bytes(layers: Sequence[LayerBlobs], *, net_name: str = "") -> int:
    """The size in bytes of what :func:`write_caffemodel` writes."""
    return sum(map(len, _encode_net(layers, net_name)))


Piece = bytes | memoryview


def _encode_net(layers: Sequence[LayerBlobs], net_name: str) -> list[Piece]:
    pieces = _field(_NET_NAME, [net_name.encode()])
    for layer in layers:
        pieces += _encode_layer(layer)
    return pieces


def encode_blob(blob: Array) -> bytes:
    """A blob as the bytes of a BlobProto: packed numbers and a BlobShape."""
    return b"".join(_encode_blob(blob))


def _encode_layer(layer: LayerBlobs) -> list[Piece]:
    numbers = NUMBERS["V2"]
    body: list[Piece] = _field(numbers.name, [layer.name.encode()])
    if layer.type:
        body += _field(numbers.type, [layer.type.encode()])
    for blob in layer.blobs:
        body += _field(numbers.blobs, _encode_blob(blob))
    return _field(_V2_LAYERS, body)


def _encode_blob(blob: Array) -> list[Piece]:
    """A BlobProto's fields in the order of their numbers, as protobuf itself writes them."""
    if blob.dtype not in (np.float32, np.float64):
        raise TypeError(f"a blob of {blob.dtype}: weight files hold float32 or float64")
    dims = b"".join(write_varint(size) for size in blob.shape)
    shape = _field(7, _field(1, [dims])) if blob.ndim else []
    if not blob.size:
        return shape
    if blob.dtype == np.float32:
        return _field(5, [_little_endian(blob, "<f4")]) + shape
    return shape + _field(8, [_little_endian(blob, "<f8")])


def _little_endian(blob: Array, dtype: str) -> memoryview:
    """The blob's values as bytes, without a copy where they lie so in memory."""
    return np.ascontiguousarray(blob, dtype=dtype).reshape(-1).view(np.uint8).data


def _field(number: int, body: Sequence[Piece]) -> list[Piece]:
    size = sum(len(piece) for piece in body)
    return [write_tag(number, LENGTH) + write_varint(size), *body]
