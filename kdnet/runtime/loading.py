"""First values of every weight, all accounted for.

From weight files by layer name, else from the layer's own file, else from fillers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import WeightSlot
from kdnet.weights import Audit, Target, WeightFile, assign, fill

Array = NDArray[Any]
Shape = tuple[int, ...]


def targets_of(slots: Iterable[WeightSlot]) -> list[Target]:
    """One target a layer; a layer that shares weights is a target of its own, as in Caffe."""
    layers: dict[str, dict[int, tuple[WeightSlot, Shape]]] = {}
    for slot in slots:
        for (layer, index), shape in zip(slot.users, slot.user_shapes, strict=True):
            layers.setdefault(layer, {})[index] = (slot, shape)
    return [_target(name, [blobs[i] for i in sorted(blobs)]) for name, blobs in layers.items()]


def _target(name: str, blobs: Sequence[tuple[WeightSlot, Shape]]) -> Target:
    slots = [slot for slot, _ in blobs]
    frozen = all(slot.role == "frozen" and slot.lr_mult == 0 for slot in slots)
    needs_file = frozen and any(slot.needs_file for slot in slots)
    stored = next((slot.stored.file for slot in slots if slot.stored), "")
    shapes = tuple(shape for _, shape in blobs)
    return Target(name, shapes, frozen, needs_file, slots[0].span, stored)


def initial_values(
    slots: Sequence[WeightSlot],
    files: Sequence[WeightFile],
    *,
    seed: int,
    allow_unloaded: bool = False,
) -> tuple[dict[str, Array], Audit]:
    """Every weight's first value by name, and what became of every layer.

    Raises:
        WeightsError: what :func:`kdnet.weights.assign` finds, such as unloaded-teacher.
    """
    loaded, audit = assign(targets_of(slots), files, allow_unloaded=allow_unloaded)
    values: dict[str, Array] = {}
    for slot in slots:
        found = [loaded[user] for user in slot.users if user in loaded]
        if found:
            values[slot.name] = found[-1].reshape(slot.shape)
        elif slot.stored:
            values[slot.name] = slot.stored.read()
        else:
            key = f"{slot.layer}/{slot.index}"
            at = slot.filler_span or slot.span
            values[slot.name] = fill(slot.filler, slot.shape, seed=seed, key=key, span=at)
    return values, audit
