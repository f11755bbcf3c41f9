"""A bounds-checked walk over protobuf wire data, in place.

Weight files are a few kilobytes of structure around hundreds of megabytes of numbers. A walk
touches the structure only; the numbers become one array each, without passing through Python
floats and without a second copy of the file in a message object.

Source: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kdnet.weights.files import Buffer

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LAST_FIELD_NUMBER = (1 << 29) - 1
_LONGEST_VARINT = 10
_LONGEST_TEXT_BYTES = 1 << 16


class WireError(Exception):
    """Bytes that are not wire data: where, why, and whether the file just ends too early."""

    def __init__(self, at: int, reason: str, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.at = at
        self.reason = reason
        self.truncated = truncated


class Field(NamedTuple):
    """One field: its number and wire type, and where its tag and its payload lie.

    ``value`` is the number of a varint field, 0 for the others.
    """

    number: int
    wire: int
    at: int
    start: int
    stop: int
    value: int = 0


def read_varint(data: Buffer, at: int, stop: int) -> tuple[int, int]:
    """The base-128 number at ``at`` and the offset after it."""
    value = 0
    for index in range(_LONGEST_VARINT):
        if at + index >= stop:
            raise _past_end(data, at, stop, "a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
    raise WireError(at, "a number of more than 10 bytes")


def write_varint(value: int) -> bytes:
    """``value`` >= 0 in base 128, least significant group first."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def write_tag(number: int, wire: int) -> bytes:
    """The tag that opens field ``number``."""
    return write_varint(number << 3 | wire)


def fields(data: Buffer, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message in ``data[start:stop]``, in order.

    Raises:
        WireError: A length or a number runs past ``stop``, or the bytes are no wire data.
    """
    at = start
    while at < stop:
        tag, payload = read_varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _LAST_FIELD_NUMBER:
            raise WireError(at, f"field number {number}")
        if wire == VARINT:
            value, end = read_varint(data, payload, stop)
            yield Field(number, wire, at, payload, end, value)
        elif wire == LENGTH:
            size, payload = read_varint(data, payload, stop)
            end = payload + size
            if end > stop:
                raise _past_end(data, at, stop, f"field {number} of {size} bytes")
            yield Field(number, wire, at, payload, end)
        else:
            end = payload + _fixed_size(wire, at)
            if end > stop:
                raise _past_end(data, at, stop, f"field {number}")
            yield Field(number, wire, at, payload, end)
        at = end


def _fixed_size(wire: int, at: int) -> int:
    if wire not in _FIXED_SIZES:
        raise WireError(at, f"wire type {wire}")
    return _FIXED_SIZES[wire]


def _past_end(data: Buffer, at: int, stop: int, what: str) -> WireError:
    whole = stop == len(data)
    where = "the file" if whole else "the message around it"
    return WireError(at, f"{what} runs past the end of {where}", truncated=whole)


def signed64(value: int) -> int:
    """A varint's value as int32 and int64 fields mean it: two's complement."""
    return value - (1 << 64) if value >> 63 else value


def read_text(data: Buffer, found: Field) -> str:
    """The text of a field.

    Raises:
        WireError: It is longer than any name, or not UTF-8.
    """
    if found.stop - found.start > _LONGEST_TEXT_BYTES:
        raise WireError(found.at, f"a name of {found.stop - found.start} bytes")
    try:
        return data[found.start : found.stop].decode()
    except UnicodeDecodeError:
        raise WireError(found.at, "a name that is not UTF-8") from None


def varints(data: Buffer, field: Field) -> list[int]:
    """The signed values of a repeated integer field's occurrence, packed or not."""
    if field.wire == VARINT:
        return [signed64(field.value)]
    if field.wire != LENGTH:
        raise WireError(field.at, f"field {field.number} is not an integer")
    values = []
    at = field.start
    while at < field.stop:
        value, at = read_varint(data, at, field.stop)
        values.append(signed64(value))
    return values
