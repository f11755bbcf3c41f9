"""Recognises files that are no text by their first bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from kdnet.schema import kdnet_pb2 as pb

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (.h5)"),
    (b"PK\x03\x04", "a zip archive (.npz)"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\xff\xfe", "text in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16; save it as UTF-8"),
)
BINARY_NET = "a binary NetParameter (.caffemodel)"
_MESSAGES = (
    (pb.NetParameter, BINARY_NET),
    (pb.SolverState, "a binary SolverState (.solverstate)"),
    (pb.BlobProto, "a binary BlobProto (.binaryproto)"),
)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE = {
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_STRING: _BYTES,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_MESSAGE: _BYTES,
}


def describe_binary(head: bytes) -> str | None:
    """What a binary file is, judged by its beginning; None when it is not known."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    for message_type, kind in _MESSAGES:
        if _could_be(head, message_type.DESCRIPTOR):
            return kind
    return None


def _could_be(head: bytes, descriptor: Any) -> bool:
    """Whether ``head`` is a walk over fields of a message, at least one of them a string or more.

    The walk ends without a fault where ``head`` does.
    """
    at, parts = 0, 0
    while at < len(head):
        tag, at = _varint(head, at)
        field = descriptor.fields_by_number.get(tag >> 3)
        wire = tag & 7
        if field is None or wire not in (_WIRE.get(field.type, _VARINT), _BYTES):
            return False
        if wire == _BYTES:
            size, at = _varint(head, at)
            at += size
            parts += 1
        elif wire == _VARINT:
            _, at = _varint(head, at)
        else:
            at += 8 if wire == _FIXED64 else 4
    return parts > 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at
