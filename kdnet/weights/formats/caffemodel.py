"""Caffe's own weight files: a binary NetParameter, whatever the file's ending."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from kdnet.weights.blobs import decode_blob
from kdnet.weights.caffemodel_wire import (
    NET_NAME,
    NUMBERS,
    V1_LAYERS,
    V2_LAYERS,
    damaged,
    open_net,
    read_layer,
)
from kdnet.weights.files import Buffer, atomic_write, let_go
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.wire import LENGTH, VARINT, Field, WireError, fields, write_tag, write_varint

# How NVIDIA's fork stores halves: BlobProto's raw_data_type and raw_data.
_RAW_TYPE, _RAW_DATA, _RAW_HALF = 10, 12, 2


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
    return _field(NET_NAME, [net_name.encode()]) if net_name else []


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
    old = sum(field.number == V1_LAYERS for field in found)
    if old:
        lost.append(f"the settings of {old} layers of the old kind (V0, V1) are not kept")
    kept = (NET_NAME, V1_LAYERS, V2_LAYERS)
    others = {f.number for f in fields(data, 0, len(data)) if f.number not in kept}
    if others:
        lost.append(f"fields of the net that are not kept: {', '.join(_field_names(others))}")
    return tuple(lost)


def _field_names(numbers: set[int]) -> list[str]:
    from kdnet.schema import kdnet_pb2 as pb

    known = pb.NetParameter.DESCRIPTOR.fields_by_number
    return sorted({known[n].name if n in known else "unknown ones" for n in numbers})


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
    for index, blob in enumerate(layer.blobs):
        body += _field(numbers.blobs, _encode_blob(blob, layer.diffs[index : index + 1]))
    body += [layer.message[f.at : f.stop] for f in others if f.number >= numbers.blobs]
    return _field(V2_LAYERS, body)


def _encode_blob(blob: Array, diff: Sequence[Array] = ()) -> list[Piece]:
    """A BlobProto's fields in the order of their numbers, as protobuf itself writes them."""
    if blob.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(f"a blob of {blob.dtype}: weight files hold float16, float32 or float64")
    dims = b"".join(write_varint(size) for size in blob.shape)
    shape = _field(7, _field(1, [dims])) if blob.ndim else []
    if not blob.size:
        return shape
    if blob.dtype == np.float32:
        beside = [piece for one in diff for piece in _field(6, [_little_endian(one, "<f4")])]
        return [*_field(5, [_little_endian(blob, "<f4")]), *beside, *shape]
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
