"""Students side by side: one net with several copies of its moving part, sharing all the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from kdnet.net.flow import feeders
from kdnet.net.model import LayerModel, NetModel
from kdnet.schema import kdnet_pb2 as pb

Origin = tuple[str, int]
Multipliers = tuple[float, float]


@dataclass(frozen=True)
class Replica:
    """One setting's own net, and what is added to the names of its copied layers and blobs."""

    net: NetModel
    label: str


@dataclass(frozen=True)
class SideBySide:
    """A net of several replicas.

    ``layers`` and ``blobs`` map the name of a copy to the name it was made from and the number of
    its replica; what is shared is in neither.
    """

    net: NetModel
    layers: Mapping[str, Origin]
    blobs: Mapping[str, Origin]


def downstream(net: NetModel, start: Collection[int]) -> frozenset[int]:
    """The layers of ``start`` and all that depend on them."""
    found: set[int] = set()
    for index, made_by in enumerate(feeders(net)):
        if index in start or not found.isdisjoint(made_by):
            found.add(index)
    return frozenset(found)


def side_by_side(replicas: Sequence[Replica], copied: Collection[int]) -> SideBySide:
    """One net in which the layers ``copied`` are there once a replica, the others once.

    Args:
        replicas: nets of the same wiring, which may differ in what their copied layers say; a
            shared layer is the first replica's.
        copied: indices of layers, closed under :func:`downstream`.
    """
    first = replicas[0].net
    layers: list[LayerModel] = []
    layer_names: dict[str, Origin] = {}
    blob_names: dict[str, Origin] = {}
    held: set[str] = set()
    for index, layer in enumerate(first.layers):
        if index not in copied:
            layers.append(layer)
            continue
        for number, replica in enumerate(replicas):
            copy = _copy(replica.net.layers[index], replica.label, held)
            layers.append(copy)
            layer_names[copy.name] = (layer.name, number)
            blob_names |= {
                new: (old, number) for new, old in zip(copy.tops, layer.tops, strict=True)
            }
        held.update(layer.tops)
    labels = [replica.label for replica in replicas]
    outputs = sorted(
        name
        for blob in first.outputs
        for name in ([blob + label for label in labels] if blob in held else [blob])
    )
    net = replace(first, layers=tuple(layers), outputs=tuple(outputs))
    return SideBySide(net, layer_names, blob_names)


def _copy(layer: LayerModel, label: str, held: Collection[str]) -> LayerModel:
    """The layer under its copy's names; it reads copies of the blobs ``held``."""
    message = pb.LayerParameter()
    message.CopyFrom(layer.message)
    for param in message.param:
        if param.name:
            param.name += label
    return replace(
        layer,
        name=layer.name + label,
        bottoms=tuple(b + label if b in held else b for b in layer.bottoms),
        tops=tuple(top + label for top in layer.tops),
        message=message,
    )


def with_multipliers(
    net: NetModel, multipliers: Mapping[str, Sequence[Multipliers | None]]
) -> NetModel:
    """The net with other lr_mult and decay_mult.

    Args:
        net: the net.
        multipliers: for each blob of each layer named the two numbers, or None where the first
            user of a shared weight says them.
    """
    return replace(
        net,
        layers=tuple(
            _multiplied(layer, multipliers[layer.name]) if layer.name in multipliers else layer
            for layer in net.layers
        ),
    )


def _multiplied(layer: LayerModel, multipliers: Sequence[Multipliers | None]) -> LayerModel:
    message = pb.LayerParameter()
    message.CopyFrom(layer.message)
    for index, given in enumerate(multipliers):
        if index == len(message.param):
            message.param.add()
        param = message.param[index]
        param.ClearField("lr_mult")
        param.ClearField("decay_mult")
        if given is not None:
            param.lr_mult, param.decay_mult = given
    return replace(layer, message=message)
