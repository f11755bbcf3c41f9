"""Class scores of one count in several shapes, made alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdnet.net.join_model import Placed
from kdnet.schema import kdnet_pb2 as pb

if TYPE_CHECKING:
    from kdnet.net.join import Joined


def flattened(joined: Joined, blobs: Sequence[str]) -> Joined:
    """The net in which losses between logits read these blobs as (N, classes)."""
    if not blobs:
        return joined
    new = {blob: f"{blob}/flat" for blob in blobs}
    losses = {loss.message.name for _, loss in joined.compared}
    layers: list[Placed] = []
    made = False
    for one in joined.layers:
        if one.message.name not in losses:
            layers.append(one)
            continue
        if not made:
            layers += _flattens(new, one)
            made = True
        message = pb.LayerParameter()
        message.CopyFrom(one.message)
        message.bottom[:] = [new.get(bottom, bottom) for bottom in one.message.bottom]
        layers.append(replace(one, message=message))
    return replace(joined, layers=tuple(layers), compared=())


def _flattens(new: dict[str, str], loss: Placed) -> list[Placed]:
    note = "Scores as (N, classes), as the others have them."
    return [
        Placed(
            pb.LayerParameter(name=flat, type="Flatten", bottom=[blob], top=[flat]),
            loss.source,
            "" if index else note,
        )
        for index, (blob, flat) in enumerate(new.items())
    ]
