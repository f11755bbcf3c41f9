"""Where the layers and blobs of a binary NetParameter lie; no number of it is decoded.

Three generations are in use: V2 (``layer``, field 100), V1 (``layers``, field 2) and V0, where a
V1 layer only wraps the layer that holds the blobs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from kdnet.errors import SchemaError, WeightsError, fail
from kdnet.weights.files import Buffer, open_buffer
from kdnet.weights.wire import LENGTH, VARINT, Field, WireError, fields, read_text, read_varint

_MOST_PARTS = 1 << 18
NET_NAME, V1_LAYERS, V2_LAYERS = 1, 2, 100
# Number and wire type of the fields that a NetParameter can begin with.
_FIRST_FIELDS = frozenset(
    {(number, LENGTH) for number in (1, 2, 3, 4, 6, 8, 100)}
    | {(number, VARINT) for number in (4, 5, 7)}
)
_V0_LAYER = 1


class Numbers(NamedTuple):
    """The field numbers of one generation of layer messages."""

    name: int
    type: int
    blobs: int


NUMBERS = {"V0": Numbers(1, 2, 50), "V1": Numbers(4, 5, 6), "V2": Numbers(1, 2, 7)}


class WireLayer(NamedTuple):
    """One layer of a file: where its message and its blobs lie; nothing is decoded yet.

    ``outer`` is the field of the net, ``inner`` the field whose payload has name and blobs: the
    same one but for V0. ``kind`` is the type as the file says it, in old files a number or
    another name. ``others`` are the byte ranges of a V2 layer that are none of the rest.
    """

    generation: str
    outer: Field
    inner: Field
    name: str
    kind: str | int
    blobs: tuple[Field, ...]
    others: tuple[tuple[int, int], ...] = ()

    @property
    def type(self) -> str:
        """Today's name of the type; empty where the file says none that Caffe ever had."""
        return (
            str(self.kind) if self.generation == "V2" else _todays_type(self.generation, self.kind)
        )


def read_layer(data: Buffer, outer: Field) -> WireLayer:
    """Find the name, the type and the blobs in the payload of a layer's field.

    Raises:
        WireError: The bytes are damaged.
    """
    generation, inner = "V2", outer
    if outer.number == V1_LAYERS:
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
    kinds = [_kind(data, field) for field in known[numbers.type][-1:]]
    blobs = tuple(known[numbers.blobs])
    kept = tuple(others) if generation == "V2" else ()
    return WireLayer(generation, outer, inner, name, kinds[0] if kinds else "", blobs, kept)


def _kind(data: Buffer, found: Field) -> str | int:
    return read_text(data, found) if found.wire == LENGTH else found.value


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
            if (field.number, field.wire) == (NET_NAME, LENGTH):
                net_name = read_text(data, field)
            elif field.number in (V1_LAYERS, V2_LAYERS) and field.wire == LENGTH:
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


@functools.lru_cache(maxsize=256)
def _todays_type(generation: str, old: str | int) -> str:
    """The Caffe type of an old layer's type; empty for one that Caffe never had."""
    # The schema takes longer to load than renaming a file takes, which asks for no types.
    from kdnet.schema import SourceMap, upgrade_net
    from kdnet.schema import kdnet_pb2 as pb

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
