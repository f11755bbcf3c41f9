"""Which layer feeds which, read off the names of blobs; in-place layers make a blob anew."""

from __future__ import annotations

from collections.abc import Iterable

from kdnet.net.model import NetModel


def feeders(net: NetModel) -> tuple[tuple[int, ...], ...]:
    """For each layer the indices of the layers that made its bottoms, one a bottom."""
    maker: dict[str, int] = {}
    found = []
    for index, layer in enumerate(net.layers):
        found.append(tuple(maker[bottom] for bottom in layer.bottoms))
        maker.update(dict.fromkeys(layer.tops, index))
    return tuple(found)


def last_makers(net: NetModel) -> dict[str, int]:
    """The index of the layer that makes each blob as it stands at the end of the net."""
    return {top: index for index, layer in enumerate(net.layers) for top in layer.tops}


def needed(net: NetModel, blobs: Iterable[str]) -> tuple[int, ...]:
    """Indices of the layers on which the final values of ``blobs`` depend, in order."""
    makers = last_makers(net)
    return upstream(net, [makers[blob] for blob in blobs])


def upstream(net: NetModel, layers: Iterable[int]) -> tuple[int, ...]:
    """Indices of ``layers`` and of all layers on which they depend, in order."""
    reads = feeders(net)
    found: set[int] = set()
    waiting = list(layers)
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += reads[index]
    return tuple(sorted(found))
