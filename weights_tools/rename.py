"""Renaming the layers of weight files without touching their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from kdnet.net.rename import Mapping
from kdnet.weights import LayerBlobs, atomic_write, read_weights, write_caffemodel
from kdnet.weights.files import Buffer
from kdnet.weights.formats.caffemodel import NUMBERS, WireLayer, damaged, open_net, read_layer
from kdnet.weights.reading import sniff_format
from kdnet.weights.wire import LENGTH, Field, WireError, fields, write_tag, write_varint

_COPY_BYTES = 1 << 20

Renames = tuple[tuple[str, str], ...]
# New bytes, or a range of the source file's bytes.
Piece = bytes | tuple[int, int]


def rename_layers(
    layers: Sequence[LayerBlobs], mapping: Mapping
) -> tuple[tuple[LayerBlobs, ...], Renames]:
    """The layers under their new names, and each rename that was made.

    Raises:
        WeightsError: ``unmatched-mapping`` or ``rename-collision``.
    """
    renamed = mapping.resolve([layer.name for layer in layers])
    made = tuple((old, new) for old, new in renamed.items() if old != new)
    return tuple(replace(layer, name=renamed[layer.name]) for layer in layers), made


def rename_file(source: str, destination: str, mapping: Mapping) -> Renames:
    """Write ``source`` to ``destination`` with its layers renamed; return the renames made.

    A ``.caffemodel`` of any generation is copied byte for byte but for the names and the lengths
    around them; memory use does not grow with the file. Other formats become a ``.caffemodel``.
    ``source`` and ``destination`` may be the same file.

    Raises:
        WeightsError: The faults of reading, writing and of :meth:`Mapping.resolve`.
    """
    if sniff_format(source).sniff is not None:
        file = read_weights(source)
        layers, made = rename_layers(file.layers, mapping)
        write_caffemodel(destination, layers, net_name=file.net_name)
        return made
    data, _, outers = open_net(source)
    found = _read_layers(source, data, outers)
    renamed = mapping.resolve([layer.name for layer in found])
    pieces = list(_pieces(data, found, renamed))
    with Path(source).open("rb") as original, atomic_write(destination) as copy:
        for piece in pieces:
            _write(piece, original, copy)
    return tuple((old, new) for old, new in renamed.items() if old != new)


def _read_layers(source: str, data: Buffer, outers: Sequence[Field]) -> list[WireLayer]:
    found: list[WireLayer] = []
    try:
        found.extend(read_layer(data, outer) for outer in outers)
    except WireError as error:
        damaged(source, len(data), error, f"layer {len(found)}")
    return found


def _pieces(data: Buffer, layers: Sequence[WireLayer], renamed: dict[str, str]) -> Iterator[Piece]:
    """The new file: ranges of the old one, and around each new name what differs."""
    at = 0
    for layer in layers:
        new = renamed[layer.name]
        if new == layer.name:
            continue
        body = _replace_name(data, layer, new.encode())
        if layer.inner is not layer.outer:
            body = _wrap(layer.outer, layer.inner, body)
        yield (at, layer.outer.at)
        yield write_tag(layer.outer.number, LENGTH) + write_varint(_size(body))
        yield from body
        at = layer.outer.stop
    yield (at, len(data))


def _replace_name(data: Buffer, layer: WireLayer, name: bytes) -> list[Piece]:
    """The payload of ``layer.inner`` with its name field replaced, or added in front."""
    number = NUMBERS[layer.generation].name
    field = write_tag(number, LENGTH) + write_varint(len(name)) + name
    named = [f for f in fields(data, layer.inner.start, layer.inner.stop) if f.number == number]
    body: list[Piece] = [] if named else [field]
    at = layer.inner.start
    for found in named:
        body += [(at, found.at), field]
        at = found.stop
    return [*body, (at, layer.inner.stop)]


def _wrap(outer: Field, inner: Field, body: list[Piece]) -> list[Piece]:
    """The payload of ``outer`` in which field ``inner`` has a new payload."""
    opening = write_tag(inner.number, LENGTH) + write_varint(_size(body))
    return [(outer.start, inner.at), opening, *body, (inner.stop, outer.stop)]


def _size(pieces: Sequence[Piece]) -> int:
    return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces)


def _write(piece: Piece, original: BinaryIO, copy: BinaryIO) -> None:
    if isinstance(piece, bytes):
        copy.write(piece)
        return
    start, stop = piece
    original.seek(start)
    while start < stop:
        block = original.read(min(_COPY_BYTES, stop - start))
        if not block:
            raise OSError(0, "the file it is copied from became shorter")
        copy.write(block)
        start += len(block)
