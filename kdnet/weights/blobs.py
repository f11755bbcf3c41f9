"""Decoding one BlobProto from wire data into one array."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from kdnet.weights.files import Buffer
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array
from kdnet.weights.wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    Field,
    WireError,
    fields,
    signed64,
    varints,
)

# Caffe's limits: kMaxBlobAxes, and a count that fits an int.
_MOST_AXES = 32
_MOST_VALUES = 2**31 - 1
_NUMBERS = {5: ("<f4", FIXED32), 8: ("<f8", FIXED64)}
# BlobProto.Type of the forks that store raw bytes, by number.
_RAW_TYPES = ("<f8", "<f4", "<f2", "<i4", "<u4")


@dataclass
class _Parts:
    """What a BlobProto's fields said, before it is known whether they agree."""

    legacy: dict[int, int] = field(default_factory=dict)
    dims: list[int] = field(default_factory=list)
    numbers: dict[int, list[Array]] = field(default_factory=dict)
    raw: Field | None = None
    raw_type: int = 0


def decode_blob(data: Buffer, start: int, stop: int) -> tuple[Array, str]:
    """The array of the BlobProto in ``data[start:stop]`` and the name of its stored type.

    16-bit floats become float32, integers float64.

    Raises:
        WireError: as :func:`view_blob`.
    """
    values = view_blob(data, start, stop)
    return as_float(values), values.dtype.name


def view_blob(data: Buffer, start: int, stop: int) -> Array:
    """The values of the BlobProto in ``data[start:stop]`` as stored, not copied where packed.

    Values come from ``raw_data``, else ``double_data``, else ``data``, the order in which Caffe
    and NVIDIA's fork look. The shape is (num, channels, height, width) when any of those legacy
    fields is there, else ``shape``.

    Raises:
        WireError: The bytes are damaged, or the shape and the number of values disagree.
    """
    parts = _read_parts(data, start, stop)
    shape = _shape(parts, start)
    values = _values(data, parts)
    if values.size != prod(shape):
        raise WireError(
            start, f"shape {shape} takes {prod(shape)} values, but {values.size} are stored"
        )
    return values.reshape(shape)


def as_float(values: Array) -> Array:
    """An own, aligned float32 or float64 copy; integers become float64, which holds 32 bits."""
    narrow = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return np.array(values, dtype=np.float32 if narrow else np.float64, order="C")


def _read_parts(data: Buffer, start: int, stop: int) -> _Parts:
    parts = _Parts()
    at = start
    while at < stop:
        found = next(fields(data, at, stop))
        at = found.stop
        if found.number in _NUMBERS:
            values, at = _read_numbers(data, found, stop)
            parts.numbers.setdefault(found.number, []).append(values)
        elif found.number <= 4 and found.wire == VARINT:
            parts.legacy[found.number] = signed64(found.value)
        elif found.number == 7 and found.wire == LENGTH:
            _read_dims(data, found, parts.dims)
        elif found.number == 10 and found.wire == VARINT:
            parts.raw_type = found.value
        elif found.number == 12 and found.wire == LENGTH:
            parts.raw = found
    return parts


def _read_dims(data: Buffer, found: Field, dims: list[int]) -> None:
    for inner in fields(data, found.start, found.stop):
        if inner.number == 1:
            # Checked before the list is made: a damaged length may claim millions of axes.
            if len(dims) + (inner.stop - inner.start) // 10 > _MOST_AXES:
                raise WireError(inner.at, f"a shape of more than {_MOST_AXES} axes")
            dims += varints(data, inner)


def _read_numbers(data: Buffer, found: Field, stop: int) -> tuple[Array, int]:
    name, unpacked = _NUMBERS[found.number]
    dtype = np.dtype(name)
    if found.wire == unpacked:
        return _run_of_fixed(data, found, dtype, stop)
    if found.wire != LENGTH or (found.stop - found.start) % dtype.itemsize:
        raise WireError(found.at, f"{found.stop - found.start} bytes of {dtype.name} numbers")
    count = (found.stop - found.start) // dtype.itemsize
    return np.frombuffer(data, dtype, count, found.start), found.stop


def _run_of_fixed(
    data: Buffer, first: Field, dtype: np.dtype[Any], stop: int
) -> tuple[Array, int]:
    """The values of equally tagged unpacked numbers from ``first`` on, and the offset after them.

    Old writers tag every number of a repeated field; one array operation a run keeps a large
    blob of them from costing a Python step a number. The window doubles, so that runs of one
    among other fields cost no more than their own bytes.
    """
    tag_bytes = first.start - first.at
    record = tag_bytes + dtype.itemsize
    tag = np.frombuffer(data, np.uint8, tag_bytes, first.at)
    count, window = 1, 16
    while True:
        window = min(window, (stop - first.at) // record)
        rows = np.frombuffer(data, np.uint8, window * record, first.at).reshape(window, record)
        same = (rows[count:, :tag_bytes] == tag).all(axis=1)
        fresh = int(same.argmin()) if not same.all() else len(same)
        count += fresh
        if count < window or window == (stop - first.at) // record:
            break
        window *= 2
    values = np.ascontiguousarray(rows[:count, tag_bytes:]).reshape(-1).view(dtype)
    return values, first.at + count * record


def _shape(parts: _Parts, at: int) -> tuple[int, ...]:
    legacy = tuple(parts.legacy.get(axis, 0) for axis in (1, 2, 3, 4))
    shape = legacy if parts.legacy else tuple(parts.dims)
    if len(shape) > _MOST_AXES:
        raise WireError(at, f"a shape of more than {_MOST_AXES} axes")
    if any(size < 0 for size in shape):
        raise WireError(at, f"a negative size in shape {shape}")
    if prod(max(size, 1) for size in shape) > _MOST_VALUES:
        raise WireError(at, f"shape {shape} takes more than 2^31 - 1 values")
    return shape


def _values(data: Buffer, parts: _Parts) -> Array:
    if parts.raw is not None:
        return _raw_values(data, parts.raw, parts.raw_type)
    number = 8 if 8 in parts.numbers else 5
    chunks = parts.numbers.get(number, [])
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate([np.empty(0, _NUMBERS[number][0]), *chunks])


def _raw_values(data: Buffer, raw: Field, raw_type: int) -> Array:
    if raw_type >= len(_RAW_TYPES):
        raise WireError(raw.at, f"raw_data_type {raw_type}")
    dtype = np.dtype(_RAW_TYPES[raw_type])
    size = raw.stop - raw.start
    if size % dtype.itemsize:
        raise WireError(raw.at, f"{size} bytes of raw {dtype.name} numbers")
    return np.frombuffer(data, dtype, size // dtype.itemsize, raw.start)
