"""Texts in the attributes of HDF5 files, read from the bytes of the file.

libhdf5 trusts what a file says of texts of variable length, which is how h5py writes a str: of a
damaged file it asks for gigabytes, or never returns. Such a text is a reference (length, address
of a heap, number in the heap) in a message of the group's header; here the way there is walked
with every step checked.

Source: HDF5 File Format Specification, version 3.0, III.E, IV.A.1.a, IV.A.2.m.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from kdnet.errors import WeightsError, fail
from kdnet.weights.files import Buffer, open_buffer
from kdnet.weights.lazy_numpy import np

_ATTRIBUTE, _CONTINUATION = 0x000C, 0x0010
_REFERENCE_BYTES = 16
_MOST_MESSAGES = 1 << 12
_LONGEST_HEADER_BYTES = 1 << 16
# Objects of heaps that are looked at: a file of Keras has a few hundred.
_MOST_OBJECTS = 1 << 18


class _Damage(Exception):  # noqa: N818  # it never leaves this module
    """The bytes are not what the format says."""


class _Message(NamedTuple):
    kind: int
    start: int
    stop: int


class _Form(NamedTuple):
    """Sizes: of a message's kind and of all before its data, and of what is around a block."""

    kind: int
    prefix: int
    before: int
    after: int


def read_texts(path: str, group: Any, key: str) -> list[str]:
    """The texts of an attribute of a group or a file, in order; none where it is not there.

    Raises:
        WeightsError: ``corrupt-weights``, also for an attribute that is kept in another way than
            h5py and Keras keep theirs.
    """
    import h5py

    name = key.encode()
    if not h5py.h5a.exists(group.id, name):
        return []
    attribute = h5py.h5a.open(group.id, name)
    count = attribute.get_space().get_simple_extent_npoints()
    if not count:
        return []
    kind = attribute.get_type()
    try:
        if kind.get_class() != h5py.h5t.STRING:
            raise _Damage
        if not kind.is_variable_str():
            return _fixed(group, key, count * kind.get_size())
        data = open_buffer(path)
        heaps = _Heaps(data)
        references = _references(data, h5py.h5o.get_info(group.id).addr, name)
        return [heaps.text(*one) for one in itertools.islice(references, count)]
    except (_Damage, UnicodeDecodeError):
        _damaged(path, key)


def _fixed(group: Any, key: str, size_bytes: int) -> list[str]:
    """Texts of one length, which lie in the header, so that they are short."""
    if size_bytes > _LONGEST_HEADER_BYTES:
        raise _Damage
    found = np.asarray(group.attrs[key]).reshape(-1).tolist()
    return [one.decode() if isinstance(one, bytes) else str(one) for one in found]


def _damaged(path: str, key: str) -> NoReturn:
    text = f'"{path}" is damaged, or keeps the texts of attribute "{key}" in an unusual way'
    fail(WeightsError, "corrupt-weights", text)


def _number(data: Buffer, at: int, size: int) -> int:
    if not 0 <= at <= len(data) - size:
        raise _Damage
    return int.from_bytes(data[at : at + size], "little")


def _references(data: Buffer, header: int, name: bytes) -> Iterator[tuple[int, int, int]]:
    """Length, heap and number of each text of the attribute ``name``."""
    for message in _messages(data, header):
        if message.kind != _ATTRIBUTE:
            continue
        found, start = _attribute(data, message)
        if found == name:
            if message.stop - start < _REFERENCE_BYTES:
                raise _Damage
            for at in range(start, message.stop - _REFERENCE_BYTES + 1, _REFERENCE_BYTES):
                yield _number(data, at, 4), _number(data, at + 4, 8), _number(data, at + 12, 4)
            return
    raise _Damage


def _messages(data: Buffer, header: int) -> Iterator[_Message]:
    """The messages of an object's header, through all of its blocks."""
    form, blocks = _header(data, header)
    for _ in range(_MOST_MESSAGES):
        if not blocks:
            return
        at, stop = blocks[0]
        if at + form.prefix > stop:
            del blocks[0]
            continue
        kind, length = _number(data, at, form.kind), _number(data, at + form.kind, 2)
        message = _Message(kind, at + form.prefix, at + form.prefix + length)
        if message.stop > min(stop, len(data)):
            raise _Damage
        if kind == _CONTINUATION:
            start = _number(data, message.start, 8)
            end = start + _number(data, message.start + 8, 8)
            blocks.append((start + form.before, end - form.after))
        yield message
        blocks[0] = (message.stop, stop)


def _header(data: Buffer, header: int) -> tuple[_Form, list[tuple[int, int]]]:
    """How the messages of a header are told apart, and where its first block lies."""
    if _number(data, header, 1) == 1:
        start = header + 16
        return _Form(2, 8, 0, 0), [(start, start + _number(data, header + 8, 4))]
    if data[header : header + 5] != b"OHDR\x02":
        raise _Damage
    flags = _number(data, header + 5, 1)
    at = header + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    width = 1 << (flags & 3)
    start = at + width
    # With flag 4 the order in which messages were made follows their flags.
    form = _Form(1, 6 if flags & 4 else 4, 4, 4)
    return form, [(start, start + _number(data, at, width))]


def _attribute(data: Buffer, message: _Message) -> tuple[bytes, int]:
    """An attribute's name, and where its data begins."""
    version, shared = _number(data, message.start, 1), _number(data, message.start + 1, 1)
    sizes = [_number(data, message.start + place, 2) for place in (2, 4, 6)]
    if version not in (1, 2, 3) or (version > 1 and shared):
        raise _Damage
    at = message.start + (9 if version == 3 else 8)
    name = bytes(data[at : at + sizes[0]]).rstrip(b"\0")
    # Version 1 fills every part up to a multiple of 8 bytes.
    parts = [-(-size // 8) * 8 for size in sizes] if version == 1 else sizes
    return name, at + sum(parts)


class _Heaps:
    """The global heaps of a file: numbered pieces of bytes, each heap walked once."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._known: dict[int, dict[int, tuple[int, int]]] = {}
        self._left = _MOST_OBJECTS

    def text(self, length: int, heap: int, number: int) -> str:
        """The text that a reference names."""
        if not length:
            return ""
        if heap not in self._known:
            self._known[heap] = dict(self._objects(heap))
        start, size = self._known[heap].get(number, (0, 0))
        if length > size:
            raise _Damage
        return bytes(self._data[start : start + length]).rstrip(b"\0").decode()

    def _objects(self, heap: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """The number, the place and the size of each piece of a heap."""
        stop = heap + _number(self._data, heap + 8, 8)
        if self._data[heap : heap + 4] != b"GCOL" or stop > len(self._data):
            raise _Damage
        at = heap + 16
        while at + 16 <= stop:
            number, size = _number(self._data, at, 2), _number(self._data, at + 8, 8)
            # Number 0 is what is free, up to the end.
            if not number:
                return
            self._left -= 1
            if at + 16 + size > stop or self._left < 0:
                raise _Damage
            yield number, (at + 16, size)
            at += 16 + -(-size // 8) * 8
