"""Fields of Caffe's forks in binary nets: their numbers say different things in each fork.

In a text a field has a name, and kdnet's schema has the names of known forks under numbers of its
own. In a binary net it has a number only, which another fork, or Caffe itself, gives to something
else. Such a net is refused. Its weights are not touched by that: they are read elsewhere, by the
numbers on which all agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdnet.errors import Diagnostic, Note, SchemaError
from kdnet.schema import kdnet_pb2 as pb

_NAME, _TYPE, _LAYERS = 1, 2, 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SHOWN = 5


@dataclass(frozen=True)
class ForkField:
    """A field by the name and the number that forks give it."""

    name: str
    number: int
    forks: str


# Of each layer type. The same field has other numbers in other forks; these are the published.
FORK_FIELDS: dict[str, tuple[ForkField, ...]] = {
    "BN": (
        ForkField("bn_param", 45, "alexgkendall/caffe-segnet"),
        ForkField("bn_param", 137, "yjxiong/caffe"),
        ForkField("bn_param", 152, "hszhao/PSPNet"),
    ),
    "Interp": (ForkField("interp_param", 143, "DeepLab and hszhao/PSPNet"),),
    "KnowledgeDistillation": (
        ForkField("knowledge_distillation_param", 147, "wentianli/knowledge_distillation_caffe"),
    ),
    "Normalize": (ForkField("norm_param", 206, "weiliu89/caffe, NVIDIA/caffe and intel/caffe"),),
    "Permute": (ForkField("permute_param", 202, "weiliu89/caffe, NVIDIA/caffe and intel/caffe"),),
    "ShuffleChannel": (ForkField("shuffle_channel_param", 164, "farmingyard/ShuffleNet"),),
    "SmoothL1Loss": (
        ForkField("smooth_l1_loss_param", 148, "intel/caffe"),
        ForkField("smooth_l1_loss_param", 8266712, "rbgirshick/caffe-fast-rcnn"),
    ),
    "Upsample": (ForkField("upsample_param", 137, "alexgkendall/caffe-segnet"),),
}


def refuse_fork_fields(data: bytes, file: str) -> None:
    """Refuse a net whose layers have fields that only their fork could read.

    Args:
        data: a NetParameter in wire format, or the beginning of one; blobs in it do not matter.
        file: the name of the file as diagnostics show it.

    Raises:
        SchemaError: fork-fields-in-binary, with the layers and their fields.
    """
    found = [text for index, layer in enumerate(_layers(data)) for text in _foreign(index, layer)]
    if not found:
        return
    notes = tuple(Note(text) for text in found[:_SHOWN])
    if len(found) > _SHOWN:
        notes += (Note(f"and {len(found) - _SHOWN} more"),)
    raise SchemaError(
        Diagnostic(
            "fork-fields-in-binary",
            f'"{file}" is a binary net with fields of a fork of Caffe',
            notes=notes,
            help=(
                "forks give one number to different fields: give the net as text, with names",
                "the weights in such a file can be read as they are",
            ),
        )
    )


def _foreign(index: int, layer: bytes) -> Iterator[str]:
    """What is said of each field of a layer that Caffe does not have or means otherwise."""
    name = kind = ""
    numbers: dict[int, None] = {}
    for number, wire, payload in _fields(layer):
        numbers[number] = None
        if wire == _BYTES and number == _NAME:
            name = payload.decode(errors="replace")
        elif wire == _BYTES and number == _TYPE:
            kind = payload.decode(errors="replace")
    known = pb.LayerParameter.DESCRIPTOR.fields_by_number
    theirs = {field.number: field for field in FORK_FIELDS.get(kind, ())}
    for number in numbers:
        who = f'layer {index}, "{name}" ({kind}): field {number} is'
        caffe_s = f"{known[number].name} in Caffe" if number in known else "none of Caffe's"
        if number in theirs:
            yield f"{who} {theirs[number].name} in {theirs[number].forks}, {caffe_s}"
        elif number not in known:
            yield f"{who} {caffe_s}"


def _layers(data: bytes) -> Iterator[bytes]:
    for number, wire, payload in _fields(data):
        if number == _LAYERS and wire == _BYTES:
            yield payload


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and payload of each whole field up to the first that is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire, end = tag & 7, at
        if wire == _VARINT:
            _, end = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            end = at + size
        elif wire in (_FIXED32, _FIXED64):
            end = at + (4 if wire == _FIXED32 else 8)
        else:
            return
        if end > len(data):
            return
        yield tag >> 3, wire, data[at:end]
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends; behind the data where it does not."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    return value, len(data) + 1
