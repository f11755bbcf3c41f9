"""Datum: the record of Caffe's databases."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from kdnet.data.image import decode
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.model import Array

Shape = tuple[int, ...]

_DATA_TAG = b"\x22"
_MAX_TAILS = 65536


@dataclass(frozen=True, eq=False)
class Item:
    """One image with its class; ``pixels`` is (C, H, W), bytes or float32 as it was stored."""

    pixels: Array
    label: int


def read_datum(record: bytes, channels: int | None = None) -> Item:
    """The image and label of one record.

    Args:
        record: A serialised Datum: raw bytes, float_data, or an encoded image.
        channels: For encoded images: 3 for colour, 1 for grey, None for what the image has.

    Raises:
        ValueError: It is no Datum, or its data does not have the size that it states. The message
            continues a sentence that begins with the record.
    """
    try:
        datum = pb.Datum.FromString(record)
    except DecodeError:
        raise ValueError("is not a Datum") from None
    if datum.encoded:
        return Item(decode(datum.data, channels), datum.label)
    shape = (datum.channels, datum.height, datum.width)
    if min(shape) < 1:
        raise ValueError(f"states the shape {shape}")
    floats = not datum.data
    found = len(datum.float_data) if floats else len(datum.data)
    if found != prod(shape):
        unit = "numbers" if floats else "bytes"
        raise ValueError(f"has {found} {unit} where the shape {shape} needs {prod(shape)}")
    pixels = np.array(datum.float_data, np.float32) if floats else _bytes(datum.data)
    return Item(pixels.reshape(shape), datum.label)


def write_datum(item: Item, encoded: bytes | None = None) -> bytes:
    """Serialise an image; with ``encoded``, that compressed file is stored instead of pixels."""
    channels, height, width = item.pixels.shape
    datum = pb.Datum(channels=channels, height=height, width=width, label=item.label)
    if encoded is not None:
        datum.data, datum.encoded = encoded, True
    elif item.pixels.dtype == np.uint8:
        datum.data = item.pixels.tobytes()
    else:
        datum.float_data.extend(item.pixels.ravel().tolist())
    return datum.SerializeToString(deterministic=True)


class RawReader:
    """Reads raw records of one shape without parsing them, where they are laid out as Caffe's.

    Such a record is the stated shape, the pixels at a known place, and a short tail with the
    label. A tail is a Datum by itself and few differ, so each is parsed once.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._size = prod(shape)
        head = pb.Datum(channels=shape[0], height=shape[1], width=shape[2])
        self._prefix = head.SerializeToString() + _DATA_TAG + _varint(self._size)
        self._end = len(self._prefix) + self._size
        self._labels: dict[bytes, int] = {}

    def read(self, record: bytes, row: NDArray[np.uint8]) -> int | None:
        """Copy the pixels into the flat ``row``; the label, or None for another layout."""
        if len(record) < self._end or not record.startswith(self._prefix):
            return None
        tail = record[self._end :]
        label = self._labels.get(tail)
        if label is None:
            label = self._label(tail)
        if label is not None:
            row[:] = np.frombuffer(record, np.uint8, self._size, len(self._prefix))
        return label

    def _label(self, tail: bytes) -> int | None:
        try:
            datum = pb.Datum.FromString(tail)
        except DecodeError:
            return None
        label = datum.label
        datum.ClearField("label")
        if not datum.encoded:
            datum.ClearField("encoded")
        if datum.ByteSize() > 0:
            return None
        if len(self._labels) < _MAX_TAILS:
            self._labels[tail] = label
        return label


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
