"""The parts of a traced net: what is read, what stands still, what training moves."""

from __future__ import annotations

from enum import Enum

from kdnet.compile.forward import Forward
from kdnet.layers import is_data
from kdnet.net import feeders


class Part(Enum):
    """What a layer's tops depend on.

    DATA: a data layer. FIXED: only data, so labels and what is made of them. FROZEN: also weights,
    none of which changes: a teacher. MOVING: a weight that the solver or its own layer changes.
    """

    DATA = "data"
    FIXED = "fixed"
    FROZEN = "frozen"
    MOVING = "moving"


def parts_of(forward: Forward) -> tuple[Part, ...]:
    """The part of each layer of a net, in order.

    A weight moves where its lr_mult is not 0 or its layer updates it, BatchNorm's statistics in
    TRAIN phase among them; so a teacher left in TRAIN phase is MOVING.
    """
    own = _own_parts(forward)
    order = list(Part)
    found: list[Part] = []
    for index, (layer, made_by) in enumerate(
        zip(forward.net.layers, feeders(forward.net), strict=True)
    ):
        if is_data(layer):
            found.append(Part.DATA)
            continue
        parts = [own.get(index, Part.FIXED), *(found[i] for i in made_by)]
        found.append(max(Part.FIXED, *parts, key=order.index))
    return tuple(found)


def _own_parts(forward: Forward) -> dict[int, Part]:
    """FROZEN or MOVING for every layer that has weights."""
    places = {id(layer): index for index, layer in enumerate(forward.net.layers)}
    by_name = {layer.name: index for index, layer in enumerate(forward.net.layers)}
    found: dict[int, Part] = {}
    for tensor, blob in forward.weights.items():
        moves = blob.lr_mult != 0 or tensor in forward.trace.updates
        users = {places.get(id(blob.layer), by_name[blob.layer.name])}
        users |= {by_name[name] for name, _ in blob.users}
        for index in users:
            if moves or index not in found:
                found[index] = Part.MOVING if moves else Part.FROZEN
    return found
