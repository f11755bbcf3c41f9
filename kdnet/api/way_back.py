"""What a backward pass is about: where its gradients start, whose are wanted, and where they are.

A net with Python layers is run in pieces, so gradients wait at the blobs between them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from kdnet.net import LayerModel, NetModel

Array = NDArray[Any]
User = tuple[str, int]


@dataclass
class WayBack:
    """A backward pass under way, from its last layer down.

    Attributes:
        ends: the blobs at which it starts, each with the gradient that lies there.
        wanted: the blobs whose gradients are.
        trained: the weights whose gradients are, by layer and index.
        waiting: the gradients that layers below have not seen yet, by blob.
        reached: the blobs that got a gradient.
    """

    ends: frozenset[str]
    wanted: frozenset[str]
    trained: frozenset[User]
    waiting: dict[str, Array] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)

    def seeds(self, layers: Iterable[LayerModel]) -> tuple[str, ...]:
        """The blobs of these layers at which gradients wait."""
        touched = {name for layer in layers for name in (*layer.bottoms, *layer.tops)}
        return tuple(name for name in self.waiting if name in touched)

    def pass_piece(
        self, seeds: Iterable[str], found: Mapping[str, Array], outside: Collection[str]
    ) -> None:
        """Some layers are passed: what waited at ``seeds`` now waits at what they read."""
        for name in seeds:
            del self.waiting[name]
        self.waiting |= {name: array for name, array in found.items() if name in outside}
        self.reached |= found.keys()

    def add(self, blob: str, gradient: Array) -> None:
        """A layer gives a blob a gradient, beside those that other layers gave it."""
        before = self.waiting.get(blob)
        self.waiting[blob] = gradient if before is None else before + gradient
        self.reached.add(blob)


def way_back(
    net: NetModel,
    layers: range,
    first: int,
    trained: frozenset[User],
    requested: Collection[str],
) -> WayBack:
    """The way through some layers.

    A blob's gradient is wanted where a trained weight or a requested blob lies before it.

    Args:
        net: the net.
        layers: those that the gradients pass.
        first: the first layer of the pass that they go back over.
        trained: the weights whose gradients are wanted.
        requested: the blobs whose gradients are wanted in any case.
    """
    ground = net.layers[first : layers.stop]
    names, wanted = {user[0] for user in trained}, set(requested)
    if net.message.force_backward:
        wanted |= {name for layer in ground for name in (*layer.bottoms, *layer.tops)}
    for layer in ground:
        if layer.name in names or not wanted.isdisjoint(layer.bottoms):
            wanted |= set(layer.tops)
    ends = open_ends(net.layers[layers.start : layers.stop])
    return WayBack(frozenset(ends), frozenset(wanted), trained)


def open_ends(layers: Iterable[LayerModel]) -> tuple[str, ...]:
    """The blobs that layers make and none of them reads afterwards."""
    unread: dict[str, None] = {}
    for layer in layers:
        for bottom in layer.bottoms:
            unread.pop(bottom, None)
        unread |= dict.fromkeys(layer.tops)
    return tuple(unread)
