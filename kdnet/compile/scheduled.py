"""Where the solver's schedules meet the traced net."""

from __future__ import annotations

from collections.abc import Container

from kdnet.compile.forward import Forward
from kdnet.errors import Diagnostic, Faults, NetError
from kdnet.graph import Tensor

RATE_FIELD = "lr_mult"


def check_schedules(forward: Forward, trained: Container[Tensor]) -> None:
    """Refuse a schedule of what none of its layers has.

    Raises:
        NetError: unknown-schedule-field.
    """
    faults = Faults(NetError)
    moved = {
        item.number
        for item in forward.schedules
        if item.field in schedulable(forward, item.layer, trained)
    }
    for item in forward.schedules:
        if item.number not in moved:
            known = schedulable(forward, item.layer, trained)
            text = f'layer "{item.layer}" has no {item.field} that a schedule can move'
            hint = (f"it has {', '.join(known)}",) if known else ("it has none",)
            faults.add(Diagnostic("unknown-schedule-field", text, item.span, help=hint))
    faults.raise_if_any()


def schedulable(forward: Forward, layer: str, trained: Container[Tensor]) -> list[str]:
    """What a schedule can move in a layer."""
    fields = list(dict.fromkeys(forward.trace.asked.get(layer, [])))
    mine = (t for t, blob in forward.weights.items() if blob.layer.name == layer)
    return [*fields, *([RATE_FIELD] if any(tensor in trained for tensor in mine) else [])]


def rate_factors(forward: Forward) -> dict[str, Tensor]:
    """The input that carries the factor on lr_mult, by layer."""
    return {
        item.layer: forward.trace.scalar(forward.g, item.layer, item.field)
        for item in forward.schedules
        if item.field == RATE_FIELD
    }
