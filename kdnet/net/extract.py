"""Surgery on nets: one blob's part of a net, and that part as a deploy definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as ByName
from dataclasses import replace
from typing import Any

from kdnet.errors import NetError, fail
from kdnet.net.model import LayerModel, NetModel
from kdnet.net.rename import Mapping
from kdnet.schema import Located, SourceMap
from kdnet.schema import kdnet_pb2 as pb

# What only training, or only one of several phases, needs to know of a layer.
TRAINING_FIELDS = (
    "include",
    "exclude",
    "phase",
    "propagate_down",
    "loss_weight",
    "blobs",
    "transform_param",
    "loss_param",
)
FILLER = "FillerParameter"
Shape = tuple[int, ...]


def cut_net(net: NetModel, layers: Iterable[int], output: str) -> NetModel:
    """The net with only ``layers``, whose one output is the blob ``output``."""
    kept = tuple(net.layers[index] for index in sorted(layers))
    return replace(net, layers=kept, outputs=(output,))


def read_tops(net: NetModel, is_data: Callable[[LayerModel], bool]) -> tuple[str, ...]:
    """The tops of data layers that some layer reads, in the order of the data layers."""
    made: dict[str, bool] = {}
    read: set[str] = set()
    for layer in net.layers:
        read.update(bottom for bottom in layer.bottoms if made.get(bottom))
        made.update(dict.fromkeys(layer.tops, is_data(layer)))
    tops = [top for layer in net.layers if is_data(layer) for top in layer.tops]
    return tuple(top for top in tops if top in read)


def deploy_net(
    net: NetModel, inputs: ByName[str, Shape], is_data: Callable[[LayerModel], bool]
) -> Located[pb.NetParameter]:
    """A net that runs on its own: Input layers, then the layers without what training needs.

    Args:
        net: what :func:`cut_net` left.
        inputs: the shape of each blob that is fed, batch axis included.
        is_data: whether a layer reads data, so that an Input layer takes its place.
    """
    message = pb.NetParameter(name=net.name)
    places = []
    for layer in net.layers:
        if is_data(layer):
            fed = [top for top in layer.tops if top in inputs]
            message.layer.extend(_input(layer, top, inputs[top]) for top in fed)
            places += [layer.source] * len(fed)
        else:
            message.layer.append(bare_layer(layer.message))
            places.append(layer.source)
    source = net.source.with_child(("layer",), SourceMap.sequence(places))
    return Located(message, source)


def _input(layer: LayerModel, top: str, shape: Shape) -> pb.LayerParameter:
    name = layer.name if layer.type == "Input" and len(layer.tops) == 1 else top
    found = pb.LayerParameter(name=name, type="Input", top=[top])
    found.input_param.shape.add(dim=shape)
    return found


def bare_layer(message: pb.LayerParameter) -> pb.LayerParameter:
    """A copy without fillers, phases, losses and learning rates; shared weights stay shared."""
    copy = pb.LayerParameter()
    copy.CopyFrom(message)
    for name in TRAINING_FIELDS:
        copy.ClearField(name)
    for param in copy.param:
        for name in ("lr_mult", "decay_mult"):
            param.ClearField(name)
    if not any(param.name for param in copy.param):
        copy.ClearField("param")
    _clear_fillers(copy)
    return copy


def _clear_fillers(message: Any) -> None:
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if kind.name == FILLER:
            message.ClearField(field.name)
        elif hasattr(value, "ListFields"):
            _clear_fillers(value)


def renamed_net(located: Located[pb.NetParameter], mapping: Mapping) -> Located[pb.NetParameter]:
    """The net with its layers, its blobs and its shared weights renamed by the same rules.

    Raises:
        WeightsError: rename-collision, when two layers would share a name.
        NetError: blob-collision, when two blobs would.
    """
    message = pb.NetParameter()
    message.CopyFrom(located.message)
    # A rule may be meant for another student of the net.
    names = replace(mapping, strict=False).resolve([layer.name for layer in message.layer])
    _check_blobs(located, mapping)
    for layer in message.layer:
        layer.name = names[layer.name]
        for blobs in (layer.bottom, layer.top):
            blobs[:] = [mapping.rename(name) for name in blobs]
        for param in layer.param:
            if param.name:
                param.name = mapping.rename(param.name)
    return Located(message, located.source)


def _check_blobs(located: Located[pb.NetParameter], mapping: Mapping) -> None:
    taken: dict[str, str] = {}
    for index, layer in enumerate(located.message.layer):
        for place, top in enumerate(layer.top):
            new = mapping.rename(top)
            first = taken.setdefault(new, top)
            if first != top:
                text = f'blobs "{first}" and "{top}" would both be called "{new}"'
                span = located.source.span(("layer", index, "top", place))
                fail(NetError, "blob-collision", text, span=span)
