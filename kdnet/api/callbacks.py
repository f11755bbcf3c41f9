"""What a program has called before and after each layer of a net."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

LayerCall = Callable[[int], object]


@dataclass
class LayerCalls:
    """Functions of a layer's index, in the order in which they were added."""

    before_forward: list[LayerCall] = field(default_factory=list)
    after_forward: list[LayerCall] = field(default_factory=list)
    before_backward: list[LayerCall] = field(default_factory=list)
    after_backward: list[LayerCall] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())


def tell(calls: Iterable[LayerCall], layers: Iterable[int]) -> None:
    """Call each function for each layer."""
    for layer in layers:
        for call in calls:
            call(layer)
