"""Caffe's own weight files: a binary NetParameter, whatever the file's ending.

Three generations are in use: V2 (``layer``, field 100), V1 (``layers``, field 2) and V0, where a
V1 layer only wraps the layer that holds the blobs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np

from kdnet.errors import SchemaError, WeightsError, fail
from kdnet.schema import SourceMap, upgrade_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.blobs import decode_blob
from kdnet.weights.files import Buffer, atomic_write, let_go, open_buffer
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.wire import (
    LENGTH,
    VARINT,
    Field,
    WireError,
    fields,
    read_text,
    read_varint,
    write_tag,
    write_varint,
)

_MOST_PARTS = 1 << 18
_NET_NAME, _V1_LAYERS, _V2_LAYERS = 1, 2, 100
# Number and wire type of the fields that a NetParameter can begin with.
_FIRST_FIELDS = frozenset(
    {(number, LENGTH) for number in (1, 2, 3, 4, 6, 8, 100)}
    | {(number, VARINT) for number in (4, 5, 7)}
)
_V0_LAYER = 1
# How NVIDIA's fork stores halves: BlobProto's raw_data_type and raw_data.
_RAW_TYPE, _RAW_DATA, _RAW_HALF = 10, 12, 2


class Numbers(NamedTuple):
    """The field numbers of one generation of layer messages."""

    name: int
    type: int
    blobs: int


NUMBERS = {"V0": Numbers(1, 2, 50), "V1": Numbers(4, 5, 6), "V2": Numbers(1, 2, 7)}


class WireLayer(NamedTuple):
    """One layer of a file: where its message and its blobs lie; nothing is decoded yet.

    ``outer`` is the field of the net, ``inner`` the field whose payload has name and blobs: the
    same one but for V0. ``others`` are the byte ranges of a V2 layer that are none of the rest.
    """

    generation: str
    outer: Field
    inner: Field
    name: str
    type: str
    blobs: tuple[Field, ...]
    others: tuple[tuple[int, int], ...] = ()


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
    known: dict[int, list[Field]] = {number: [] for number in numbers}
    others: list[tuple[int, int]] = []
    for field in fields(data, inner.start, inner.stop):
        if field.number not in known:
            # One range a run of fields: damaged bytes may look like millions of them.
            joined = bool(others) and others[-1][1] == field.at
            start = others.pop()[0] if joined else field.at
            others.append((start, field.stop))
        elif field.wire == LENGTH or field.number == numbers.type:
            known[field.number].append(field)
            _check_count(field.at, known[field.number])
    name = "".join(read_text(data, field) for field in known[numbers.name][-1:])
    kind = _type(data, generation, known[numbers.type][-1:])
    blobs = tuple(known[numbers.blobs])
    kept = tuple(others) if generation == "V2" else ()
    return WireLayer(generation, outer, inner, name, kind, blobs, kept)


def _type(data: Buffer, generation: str, found: Sequence[Field]) -> str:
    """Today's name of the type that the layer's last field of it says."""
    if not found:
        return "" if generation == "V2" else _todays_type(generation, "")
    kind = read_text(data, found[0]) if found[0].wire == LENGTH else found[0].value
    return str(kind) if generation == "V2" else _todays_type(generation, kind)


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
                net_name = read_text(data, field)
            elif field.number in (_V1_LAYERS, _V2_LAYERS) and field.wire == LENGTH:
                found.append(field)
                _check_count(field.at, found)
    except WireError as error:
        if not _may_be_net(data):
            _foreign(path, "its first bytes are not those of a Caffe net")
        damaged(path, len(data), error, f"layer {len(found)}")
    if not found:
        _foreign(path, "it is not a Caffe net, or a net without layers")
    return data, net_name, tuple(found)


def _check_count(at: int, found: Sequence[Field]) -> None:
    # Damaged bytes may look like millions of empty ones.
    if len(found) > _MOST_PARTS:
        raise WireError(at, f"more than {_MOST_PARTS} layers or blobs")


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
        let_go(data, outer.stop - outer.start)
        yield LayerBlobs(
            layer.name,
            layer.type,
            tuple(values for values, _ in decoded),
            tuple(stored for _, stored in decoded),
            b"".join(data[start:stop] for start, stop in layer.others),
        )


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
    path: str | os.PathLike[str], layers: Iterable[LayerBlobs], *, net_name: str = ""
) -> None:
    """Write layers and their blobs as a binary NetParameter (V2), atomically.

    float32 blobs become packed ``data``, float64 blobs packed ``double_data``, each with a
    BlobShape; the same layers always give the same bytes. float16 blobs become ``raw_data`` as
    NVIDIA's fork has it, which OpenCV reads too and Caffe itself does not. Protobuf readers,
    Caffe's among them, refuse messages of 2 GiB and more; kdnet reads them.

    Raises:
        WeightsError: ``cannot-write``; the file that was there is still whole.
        TypeError: A blob is not of 16, 32 or 64 bit floats.
    """
    with atomic_write(path) as file:
        _write(file, layers, net_name)


def encoded_bytes(layers: Sequence[LayerBlobs], *, net_name: str = "") -> int:
    """The size in bytes of what :func:`write_caffemodel` writes."""
    pieces = [piece for layer in layers for piece in _encode_layer(layer)]
    return sum(map(len, _encode_name(net_name) + pieces))


Piece = bytes | memoryview


def _write(file: BinaryIO, layers: Iterable[LayerBlobs], net_name: str) -> None:
    file.writelines(_encode_name(net_name))
    for layer in layers:
        file.writelines(_encode_layer(layer))


def _encode_name(net_name: str) -> list[Piece]:
    return _field(_NET_NAME, [net_name.encode()]) if net_name else []


@weight_format(
    "caffemodel",
    sniff=None,
    write=_write,
    suffixes=(".caffemodel", ".bin"),
)
def read_caffemodel(path: str) -> Stream:
    """Read a binary NetParameter of any generation.

    Raises:
        WeightsError: as :func:`open_net`; a damaged layer is found when it is reached.
    """
    data, net_name, found = open_net(path)
    return Stream(net_name, _decode(path, data, found), lost=_left_out(data, found))


def _left_out(data: Buffer, found: Sequence[Field]) -> tuple[str, ...]:
    """What has no room in layers of blobs: old layers' settings, other fields of the net."""
    lost = []
    old = sum(field.number == _V1_LAYERS for field in found)
    if old:
        lost.append(f"the settings of {old} layers of the old kind (V0, V1) are not kept")
    kept = (_NET_NAME, _V1_LAYERS, _V2_LAYERS)
    names = pb.NetParameter.DESCRIPTOR.fields_by_number
    others = (f.number for f in fields(data, 0, len(data)) if f.number not in kept)
    known = {names[number].name if number in names else "unknown ones" for number in others}
    if known:
        lost.append(f"fields of the net that are not kept: {', '.join(sorted(known))}")
    return tuple(lost)


def encode_blob(blob: Array) -> bytes:
    """A blob as the bytes of a BlobProto: packed numbers and a BlobShape."""
    return b"".join(_encode_blob(blob))


def _encode_layer(layer: LayerBlobs) -> list[Piece]:
    """A layer's fields in the order of their numbers, as protobuf itself writes them."""
    numbers = NUMBERS["V2"]
    body: list[Piece] = _field(numbers.name, [layer.name.encode()])
    if layer.type:
        body += _field(numbers.type, [layer.type.encode()])
    others = list(fields(layer.message, 0, len(layer.message)))
    body += [layer.message[f.at : f.stop] for f in others if f.number < numbers.blobs]
    for blob in layer.blobs:
        body += _field(numbers.blobs, _encode_blob(blob))
    body += [layer.message[f.at : f.stop] for f in others if f.number >= numbers.blobs]
    return _field(_V2_LAYERS, body)


def _encode_blob(blob: Array) -> list[Piece]:
    """A BlobProto's fields in the order of their numbers, as protobuf itself writes them."""
    if blob.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(f"a blob of {blob.dtype}: weight files hold float16, float32 or float64")
    dims = b"".join(write_varint(size) for size in blob.shape)
    shape = _field(7, _field(1, [dims])) if blob.ndim else []
    if not blob.size:
        return shape
    if blob.dtype == np.float32:
        return _field(5, [_little_endian(blob, "<f4")]) + shape
    if blob.dtype == np.float64:
        return shape + _field(8, [_little_endian(blob, "<f8")])
    kind = write_tag(_RAW_TYPE, VARINT) + write_varint(_RAW_HALF)
    return [*shape, kind, *_field(_RAW_DATA, [_little_endian(blob, "<f2")])]


def _little_endian(blob: Array, dtype: str) -> memoryview:
    """The blob's values as bytes, without a copy where they lie so in memory."""
    return np.ascontiguousarray(blob, dtype=dtype).reshape(-1).view(np.uint8).data


def _field(number: int, body: Sequence[Piece]) -> list[Piece]:
    size = sum(len(piece) for piece in body)
    return [write_tag(number, LENGTH) + write_varint(size), *body]
