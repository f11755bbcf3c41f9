"""A net as Caffe runs it: with split layers, and with its choice of what gets a gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdnet.layers import layer_class
from kdnet.net import LayerModel, NetModel

Place = tuple[int, int]


@dataclass
class Wired:
    """One layer of Caffe's net.

    Attributes:
        index: the layer of the prototxt; for a split layer the one whose top it splits.
        name: its name.
        bottoms: its bottoms' names in Caffe's net.
        tops: its tops' names there.
        split: for a split layer the number of the top that it splits.
        weighted: whether a top counts as a loss.
        wanted: for each bottom whether its gradient is computed.
        backward: whether gradients go through it.
    """

    index: int
    name: str
    bottoms: list[str]
    tops: list[str]
    split: int | None = None
    weighted: list[bool] = field(default_factory=list)
    wanted: list[bool] = field(default_factory=list)
    backward: bool = False


def wire(net: NetModel, trained: Mapping[int, bool]) -> list[Wired]:
    """The net with a split layer after each top that is read more than once.

    Args:
        net: the net.
        trained: for each layer whether any of its weights gets a gradient.

    Source: BVLC/caffe insert_splits and net, Init.
    """
    makers = _makers(net)
    counts = Counter(place for row in makers for place in row)
    counts.update(_explicit_losses(net))
    taken: Counter[Place] = Counter(place for place in _explicit_losses(net) if counts[place] > 1)
    found: list[Wired] = []
    for index, layer in enumerate(net.layers):
        bottoms = []
        for bottom, place in zip(layer.bottoms, makers[index], strict=True):
            split = counts[place] > 1
            bottoms.append(_split_name(net, place, taken[place]) if split else bottom)
            taken[place] += 1
        tops = list(layer.tops) or ["(automatic)"] * layer_class(layer).is_loss
        found.append(Wired(index, layer.name, bottoms, tops, weighted=_weighted(layer)))
        for number in range(len(layer.tops)):
            if counts[index, number] > 1:
                found.append(_split(net, (index, number), counts[index, number], found[-1]))
    _choose(net, found, trained)
    return found


def _makers(net: NetModel) -> list[list[Place]]:
    """For each layer the (layer, top) that made each bottom."""
    latest: dict[str, Place] = {}
    found = []
    for index, layer in enumerate(net.layers):
        found.append([latest[bottom] for bottom in layer.bottoms])
        latest.update({top: (index, number) for number, top in enumerate(layer.tops)})
    return found


def _explicit_losses(net: NetModel) -> list[Place]:
    """Tops whose loss weight is written out: Caffe counts that as one more reader."""
    return [
        (index, number)
        for index, layer in enumerate(net.layers)
        for number, weight in enumerate(layer.message.loss_weight[: len(layer.tops)])
        if weight
    ]


def _split_name(net: NetModel, place: Place, number: int | None = None) -> str:
    layer = net.layers[place[0]]
    name = f"{layer.tops[place[1]]}_{layer.name}_{place[1]}_split"
    return name if number is None else f"{name}_{number}"


def _split(net: NetModel, place: Place, count: int, maker: Wired) -> Wired:
    index, number = place
    weighted = [False] * count
    if number < len(maker.weighted):
        weighted[0], maker.weighted[number] = maker.weighted[number], False
    tops = [_split_name(net, place, copy) for copy in range(count)]
    blob = net.layers[index].tops[number]
    return Wired(index, _split_name(net, place), [blob], tops, number, weighted)


def _weighted(layer: LayerModel) -> list[bool]:
    if layer.message.loss_weight:
        return [bool(weight) for weight in layer.message.loss_weight]
    return [layer_class(layer).is_loss]


def _choose(net: NetModel, found: Sequence[Wired], trained: Mapping[int, bool]) -> None:
    """Say of each layer and bottom whether a gradient is computed."""
    needed: set[str] = set()
    for item in found:
        item.wanted = [bottom in needed for bottom in item.bottoms]
        own = item.split is None and trained.get(item.index, False)
        item.backward = own or any(item.wanted)
        if item.backward:
            needed.update(item.tops)
        given = net.layers[item.index].message.propagate_down
        if item.split is None and given:
            item.wanted = list(given)
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for item in reversed(found):
        counts = any(item.weighted) or any(top in under_loss for top in item.tops)
        if item.backward and all(top in skipped for top in item.tops):
            item.backward = False
            item.wanted = [False] * len(item.wanted)
        if counts:
            under_loss.update(item.bottoms)
        else:
            item.backward = False
            item.wanted = [False] * len(item.wanted)
        skipped.update(b for b, want in zip(item.bottoms, item.wanted, strict=True) if not want)
