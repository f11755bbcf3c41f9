"""How one net's view of an image follows from another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from kdnet.errors import NetError, Note, fail
from kdnet.net.join.model import Member
from kdnet.net.model import LayerModel
from kdnet.schema import kdnet_pb2 as pb

Transform = pb.TransformationParameter


@dataclass(frozen=True)
class Affine:
    """y = scale · x + shift, for every channel alike."""

    scale: float = 1.0
    shift: float = 0.0


def viewed_as(own: Transform, shared: Transform) -> Transform:
    """A net's own input format, with the shared layer's flips: all must see the same picture."""
    wanted = Transform()
    wanted.CopyFrom(own)
    wanted.ClearField("mirror")
    if shared.mirror:
        wanted.mirror = True
    return wanted


def affine_between(shared: Transform, wanted: Transform) -> Affine | None:
    """The step from one view to another; None where it is not one number for all channels.

        (x − m') · s' = ((x − m) · s) · s'/s + (m − m') · s'

    Views of other crops, and of one mean image and something else, are no such step.
    """
    fixed = ("crop_size", "mean_file", "force_color", "force_gray")
    if any(getattr(shared, name) != getattr(wanted, name) for name in fixed) or not shared.scale:
        return None
    before, after = list(shared.mean_value) or [0.0], list(wanted.mean_value) or [0.0]
    channels = max(len(before), len(after))
    before *= channels if len(before) == 1 else 1
    after *= channels if len(after) == 1 else 1
    shifts = {m - mine for m, mine in zip(before, after, strict=False)}
    if len(before) != len(after) or len(shifts) != 1:
        return None
    return Affine(wanted.scale / shared.scale, shifts.pop() * wanted.scale)


def deploy_transform(
    member: Member, own: LayerModel, top: str, theirs: LayerModel
) -> Transform | None:
    """The shared view, cropped to the size that a deploy net's input states.

    Raises:
        NetError: input-size, where no crop of the shared records has that size.
    """
    wanted = _input_size(own, top)
    stored = _stored_size(theirs)
    crop = theirs.message.transform_param.crop_size
    seen = (stored[:1] if stored else []) + [crop, crop] if crop else stored
    if not wanted or not seen or wanted[-2:] == seen[-2:]:
        _check_channels(member, own, theirs, wanted, stored)
        return None
    height, width = wanted[-2:]
    if height != width or (stored and height > min(stored[-2:])):
        _refuse(member, own, theirs, wanted, stored or seen)
    _check_channels(member, own, theirs, wanted, stored)
    found = Transform()
    found.CopyFrom(theirs.message.transform_param)
    found.crop_size = height
    return found


def _check_channels(
    member: Member, own: LayerModel, theirs: LayerModel, wanted: list[int], stored: list[int]
) -> None:
    if wanted and stored and wanted[0] != stored[0]:
        _refuse(member, own, theirs, wanted, stored)


def _refuse(
    member: Member, own: LayerModel, theirs: LayerModel, wanted: list[int], stored: list[int]
) -> NoReturn:
    text = f"{member.name} wants {_sized(wanted)}, but the shared records are {_sized(stored)}"
    fail(
        NetError,
        "input-size",
        text,
        span=own.source.span(("input_param", "shape", 0)),
        notes=(Note("the shared data layer is here", theirs.position),),
        help=("store larger records, or take the data layers of the other net",),
    )


def _sized(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def _input_size(own: LayerModel, top: str) -> list[int]:
    """(C, H, W) of an Input layer's top; empty where it is no image or not stated."""
    shapes = own.message.input_param.shape
    index = own.tops.index(top) if len(shapes) > 1 else 0
    if index >= len(shapes) or len(shapes[index].dim) != 4:
        return []
    return list(shapes[index].dim)[1:]


def _stored_size(theirs: LayerModel) -> list[int]:
    """(C, H, W) of the shared records, where their layer states it."""
    for spec, value in theirs.message.ListFields():
        shape: Any = getattr(value, "shape", None) if spec.message_type is not None else None
        dims = getattr(shape, "dim", None)
        if dims is not None and len(dims) == 3:
            return list(dims)
    return []
