"""``kdnet upgrade``: old nets and solvers as files of today's format.

The numbers of a binary net pass through untouched: its blobs are set aside, what is left is
upgraded as a message, and each blob goes back into its layer byte for byte. So neither the size
of a file nor how a fork stores its numbers matters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from google.protobuf.message import DecodeError, Message

from kdnet.errors import WeightsError, fail
from kdnet.schema import (
    SourceMap,
    net_upgrades,
    read_prototxt,
    refuse_fork_fields,
    snapshot_prefix_in,
    solver_upgrades,
    upgrade_net,
    upgrade_solver,
    write_text,
)
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import fields_of
from kdnet.weights.caffemodel_wire import NUMBERS, damaged, open_net, read_layer
from kdnet.weights.files import Buffer, atomic_write, open_buffer
from kdnet.weights.wire import LENGTH, Field, WireError, fields, write_tag, write_varint

Form = Literal["text", "binary"]
M = TypeVar("M", pb.NetParameter, pb.SolverParameter)

_HEAD_BYTES = 4096
_TEXT_CONTROLS = b"\t\n\v\f\r"
_V2_LAYERS = 100
_BLOB_NUM = 1


@dataclass(frozen=True)
class Upgraded:
    """What was done: the upgrades in words, the form that was written, and what it lacks."""

    done: tuple[str, ...]
    form: Form
    lost: tuple[str, ...] = ()


def upgrade_net_file(
    source: str | os.PathLike[str], target: str | os.PathLike[str], form: Form | None = None
) -> Upgraded:
    """Write the net in ``source`` to ``target`` in today's format; both may be one file.

    Args:
        source: a prototxt, or a binary NetParameter such as a .caffemodel; its content decides.
        target: the file to write, whole or not at all. A text that has nothing to upgrade is
            copied as it is, with its comments.
        form: of ``target``; by default that of ``source``. A text gets no weights.

    Raises:
        SchemaError: faults of a text, and nets that cannot be upgraded.
        WeightsError: faults of a binary file; cannot-write.
    """
    path = os.fspath(source)
    if is_binary(path):
        return _upgrade_binary_net(path, target, form or "binary")
    located = read_prototxt(path, pb.NetParameter)
    net, _ = upgrade_net(located.message, located.source)
    done = net_upgrades(located.message)
    if form == "binary":
        _write(target, [net.SerializeToString(deterministic=True)])
    else:
        _write(target, [write_text(net).encode() if done else Path(path).read_bytes()])
    return Upgraded(done, form or "text")


def upgrade_solver_file(
    source: str | os.PathLike[str], target: str | os.PathLike[str], form: Form | None = None
) -> Upgraded:
    """Write the solver in ``source`` to ``target`` in today's format; as :func:`upgrade_net_file`.

    A snapshot_prefix that names a folder gets the solver's name appended, as when it is run.

    Raises:
        SchemaError: faults of a text, and a solver that cannot be upgraded.
        WeightsError: corrupt-weights; cannot-write.
    """
    path = os.fspath(source)
    binary = is_binary(path)
    if binary:
        before = _parsed(path, bytes(open_buffer(path)), pb.SolverParameter)
        places = SourceMap.empty()
    else:
        located = read_prototxt(path, pb.SolverParameter)
        before, places = located.message, located.source
    after, _ = upgrade_solver(before, places)
    prefix = snapshot_prefix_in(after.snapshot_prefix, path)
    if prefix:
        after.snapshot_prefix = prefix
    done = solver_upgrades(before, after)
    wanted: Form = form or ("binary" if binary else "text")
    if wanted == "binary":
        _write(target, [after.SerializeToString(deterministic=True)])
    elif done or binary:
        _write(target, [write_text(after).encode()])
    else:
        _write(target, [Path(path).read_bytes()])
    return Upgraded(done, wanted)


def is_binary(path: str) -> bool:
    """Whether a file's first bytes are no text; a file that cannot be read counts as text."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return False
    return any(byte < 32 and byte not in _TEXT_CONTROLS for byte in head)


def _upgrade_binary_net(path: str, target: str | os.PathLike[str], form: Form) -> Upgraded:
    data, _, found = open_net(path)
    try:
        skeleton, blobs = _set_aside(data, found)
    except WireError as error:
        damaged(path, len(data), error, "a layer")
    if form == "text":
        refuse_fork_fields(skeleton, path)
    old = _parsed(path, skeleton, pb.NetParameter)
    _check_blobs(path, old, len(blobs))
    net, _ = upgrade_net(old, SourceMap.empty())
    done = net_upgrades(old)
    if form == "text":
        lost = _without_blobs(net)
        _write(target, [write_text(net).encode()])
        return Upgraded(done, form, lost)
    _write(target, _pieces(net, data, blobs) if done else [data])
    return Upgraded(done, form)


def _set_aside(data: Buffer, layers: Sequence[Field]) -> tuple[bytes, list[Field]]:
    """The net's bytes with the number of a blob in place of each blob, and where those lie."""
    body, blobs = [], list[Field]()
    begins = {layer.at for layer in layers}
    for field in fields(data, 0, len(data)):
        if field.at not in begins:
            body.append(data[field.at : field.stop])
            continue
        layer = read_layer(data, field)
        number = NUMBERS[layer.generation].blobs
        pieces, at = [], layer.inner.start
        for blob in layer.blobs:
            pieces += [data[at : blob.at], _length(number, _numbered(len(blobs)))]
            blobs.append(blob)
            at = blob.stop
        inner = b"".join((*pieces, data[at : layer.inner.stop]))
        if layer.inner is not field:
            before = data[field.start : layer.inner.at]
            inner = (
                before + _length(layer.inner.number, inner) + data[layer.inner.stop : field.stop]
            )
        body.append(_length(field.number, inner))
    return b"".join(body), blobs


def _check_blobs(path: str, net: pb.NetParameter, count: int) -> None:
    """Two messages in place of one, which protobuf joins, would bring blobs that nobody saw."""
    held = [blob.num for layer in net.layer for blob in layer.blobs]
    for layer in net.layers:
        held += [blob.num for blob in (layer.layer if layer.HasField("layer") else layer).blobs]
    if held != list(range(count)):
        fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: a layer has two messages')


def _numbered(index: int) -> bytes:
    """A BlobProto that says which blob it stands for, in a field that old files use."""
    return write_varint(_BLOB_NUM << 3) + write_varint(index)


def _pieces(net: pb.NetParameter, data: Buffer, blobs: Sequence[Field]) -> Iterator[bytes]:
    """The net's bytes with every blob back in its place."""
    layers = list(net.layer)
    head = pb.NetParameter()
    head.CopyFrom(net)
    head.ClearField("layer")
    yield head.SerializeToString(deterministic=True)
    for layer in layers:
        kept = [blobs[blob.num] for blob in layer.blobs]
        layer.ClearField("blobs")
        message = layer.SerializeToString(deterministic=True)
        number = NUMBERS["V2"].blobs
        values = [_tag(number, blob.stop - blob.start) for blob in kept]
        size = sum(
            len(tag) + blob.stop - blob.start for tag, blob in zip(values, kept, strict=True)
        )
        yield _tag(_V2_LAYERS, len(message) + size) + message
        for tag, blob in zip(values, kept, strict=True):
            yield tag
            yield data[blob.start : blob.stop]


def _without_blobs(net: pb.NetParameter) -> tuple[str, ...]:
    held = sum(bool(layer.blobs) for layer in net.layer)
    for layer in net.layer:
        layer.ClearField("blobs")
    plural = "layer" if held == 1 else "layers"
    return (f"the weights of {held} {plural}, which a text does not hold",) if held else ()


def _parsed(path: str, data: bytes, message_type: Callable[[], M]) -> M:
    message = message_type()
    try:
        message.ParseFromString(data)
    except DecodeError:
        _damaged(path, message)
    if not _has_texts(message):
        _damaged(path, message)
    return message


def _damaged(path: str, message: Message) -> NoReturn:
    kind = message.DESCRIPTOR.name
    fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: it is no whole {kind}')


def _has_texts(message: Message) -> bool:
    """Whether every string, however deep, is text: protobuf gives one that is not as bytes."""
    known = fields_of(message.DESCRIPTOR)
    for found, value in message.ListFields():
        values = value if known[found.name].repeated else (value,)
        if found.message_type is not None:
            if not all(map(_has_texts, values)):
                return False
        elif found.type == found.TYPE_STRING and any(isinstance(one, bytes) for one in values):
            return False
    return True


def _length(number: int, payload: bytes) -> bytes:
    return _tag(number, len(payload)) + payload


def _tag(number: int, size: int) -> bytes:
    return write_tag(number, LENGTH) + write_varint(size)


def _write(target: str | os.PathLike[str], pieces: Sequence[Buffer] | Iterator[bytes]) -> None:
    with atomic_write(target) as file:
        for piece in pieces:
            file.write(piece)
