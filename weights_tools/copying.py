"""Binary NetParameters made out of others: what does not change is copied on the wire.

A layer's message is a few hundred bytes around millions of numbers. Names and lengths are written
anew, the numbers go from file to file without being decoded, and memory does not grow with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from typing import BinaryIO, NamedTuple

from kdnet.weights import atomic_write
from kdnet.weights.caffemodel_wire import NUMBERS, WireLayer, damaged, open_net, read_layer
from kdnet.weights.files import Buffer
from kdnet.weights.wire import LENGTH, WireError, fields, write_tag, write_varint
from weights_tools.progress import Progress, silent

_BLOCK_BYTES = 1 << 20
# How much is written before the disk is told to begin.
_FLUSH_BYTES = 8 << 20


class Range(NamedTuple):
    """Bytes of a file that are copied as they are."""

    path: str
    start: int
    stop: int


Piece = bytes | Range


@dataclass(frozen=True, eq=False)
class WireNet:
    """A binary NetParameter: its bytes and where its layers lie."""

    path: str
    data: Buffer
    net_name: str
    layers: tuple[WireLayer, ...]

    @property
    def generations(self) -> frozenset[int]:
        """The fields of a NetParameter that hold its layers: Caffe reads files that have one."""
        return frozenset(layer.outer.number for layer in self.layers)


def open_wire(path: str) -> WireNet:
    """Find the layers of a binary NetParameter.

    Raises:
        WeightsError: as :func:`kdnet.weights.read_weights`.
    """
    data, net_name, outers = open_net(path)
    found: list[WireLayer] = []
    try:
        found.extend(read_layer(data, outer) for outer in outers)
    except WireError as error:
        damaged(path, len(data), error, f"layer {len(found)}")
    return WireNet(path, data, net_name, tuple(found))


def renamed_net(net: WireNet, names: Sequence[str | None]) -> Iterator[Piece]:
    """The whole file with a name for every layer; a layer with None is left out."""
    at = 0
    for layer, name in zip(net.layers, names, strict=True):
        if name == layer.name:
            continue
        yield Range(net.path, at, layer.outer.at)
        if name is not None:
            yield from renamed_layer(net, layer, name)
        at = layer.outer.stop
    yield Range(net.path, at, len(net.data))


def renamed_layer(net: WireNet, layer: WireLayer, name: str) -> Iterator[Piece]:
    """One layer's field under another name."""
    if name == layer.name:
        yield Range(net.path, layer.outer.at, layer.outer.stop)
        return
    body = _with_name(net, layer, name)
    if layer.inner is not layer.outer:
        body = [
            Range(net.path, layer.outer.start, layer.inner.at),
            *_field(layer.inner.number, body),
            Range(net.path, layer.inner.stop, layer.outer.stop),
        ]
    yield from _field(layer.outer.number, body)


def _with_name(net: WireNet, layer: WireLayer, name: str) -> list[Piece]:
    """The payload of ``layer.inner`` with its name field replaced, or added in front."""
    number = NUMBERS[layer.generation].name
    field = _field(number, [name.encode()])
    start, stop = layer.inner.start, layer.inner.stop
    named = [f for f in fields(net.data, start, stop) if (f.number, f.wire) == (number, LENGTH)]
    body: list[Piece] = [] if named else [*field]
    at = start
    for found in named:
        body += [Range(net.path, at, found.at), *field]
        at = found.stop
    return [*body, Range(net.path, at, stop)]


def _field(number: int, body: Sequence[Piece]) -> list[Piece]:
    return [write_tag(number, LENGTH) + write_varint(sum(map(_size, body))), *body]


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.stop - piece.start


def write_pieces(path: str, pieces: Iterable[Piece], progress: Progress = silent) -> None:
    """Write a file piece by piece, atomically.

    Raises:
        WeightsError: ``cannot-write``; the file that was there is still whole.
    """
    listed = list(pieces)
    total, done = sum(map(_size, listed)), 0
    opened: dict[str, FileIO] = {}
    block = memoryview(bytearray(_BLOCK_BYTES))
    with ExitStack() as closing, atomic_write(path) as copy:
        disk = _Disk(copy)
        for piece in listed:
            if isinstance(piece, bytes):
                copy.write(piece)
                continue
            if piece.path not in opened:
                opened[piece.path] = closing.enter_context(FileIO(piece.path))
            for count in _copied(opened[piece.path], piece, copy, block):
                done += count
                disk.begin(done)
                progress(done, total)


class _Disk:
    """Lets the disk write while the rest of a file is made, so that the end need not wait."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = 0

    def begin(self, done: int) -> None:
        """Hand over what was written since, where the system takes it and it is worth it."""
        if done - self._begun >= _FLUSH_BYTES and hasattr(os, "posix_fadvise"):
            length = done - self._begun
            os.posix_fadvise(self._file.fileno(), self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = done


def _copied(original: FileIO, piece: Range, copy: BinaryIO, block: memoryview) -> Iterator[int]:
    """Copy a range block by block; yields the bytes of each."""
    done = 0
    for count in _copied_by_the_system(original, piece, copy):
        done += count
        yield count
    original.seek(piece.start + done)
    left = piece.stop - piece.start - done
    while left:
        count = original.readinto(block[: min(len(block), left)])
        if not count:
            raise OSError(0, "the file it is copied from became shorter")
        copy.write(block[:count])
        left -= count
        yield count


def _copied_by_the_system(original: FileIO, piece: Range, copy: BinaryIO) -> Iterator[int]:
    """Copy what the system copies by itself, as long as it does; the bytes of each block."""
    at = piece.start
    if piece.stop - at < _BLOCK_BYTES or not hasattr(os, "copy_file_range"):
        return
    # What was written so far must lie before what the system adds.
    copy.flush()
    while at < piece.stop:
        try:
            most = min(_FLUSH_BYTES, piece.stop - at)
            count = os.copy_file_range(original.fileno(), copy.fileno(), most, at)
        except OSError:
            # Not between these two files: reading and writing says what is wrong, if anything.
            return
        if not count:
            return
        at += count
        yield count
