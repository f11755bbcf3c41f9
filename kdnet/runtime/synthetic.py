"""``--synthetic-data``: made-up data where a net names data that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from kdnet.compile import trace_forward
from kdnet.data.missing import image_shape, is_missing, lacks_matrix, lacks_mean, named_path
from kdnet.data.source import source_class, static_shapes
from kdnet.data.transform import transformed_shape
from kdnet.errors import DataError, Diagnostic, Faults
from kdnet.graph import Emitter
from kdnet.layers import is_data, roles_of
from kdnet.net import LayerModel, NetModel
from kdnet.net.model import StandIn
from kdnet.runtime import log as places
from kdnet.runtime.log import CaffeLog

Shape = tuple[int, ...]

MIDDLE = 128.0
"""What is subtracted where a mean file is not there: the middle of a byte's values."""

_IMAGES = ("Data", "ImageData", "MemoryData", "WindowData")


@dataclass(frozen=True)
class _Known:
    """Shapes by top: what the command line says, and those of data that are there."""

    given: Mapping[str, Shape]
    found: Mapping[str, Shape]


def with_stand_ins(
    nets: Sequence[NetModel],
    given: Mapping[str, Shape],
    log: CaffeLog,
    others: Sequence[NetModel] = (),
) -> list[NetModel]:
    """The nets with a stand-in for each data layer whose data, or whose mean file, is not there.

    The identity stands in for a matrix of InfogainLoss that is not there.

    Shapes come from the layer, from ``given`` (item shapes by first top), from a mean file, from
    crop_size, else from what is read of the same top in another of the nets; the range of labels
    from the layers that read them. Data that are there stay.

    Args:
        nets: The nets of one run.
        given: What the command line says.
        log: Hears of every stand-in.
        others: Nets that only tell shapes.

    Raises:
        DataError: unknown-item-shape, with what a layer's parameters are refused for.
        LayerError: the nets' faults.
    """
    told: set[str] = set()
    nets = [_with_matrices(_with_means(net, log), told, log) for net in nets]
    known = _Known(given, _shapes_there([*nets, *others], given))
    faults = Faults(DataError)
    made = [_with_shapes(net, known, faults) for net in nets]
    faults.raise_if_any()
    return [_with_classes(net, given, told, log) for net in made]


def _with_means(net: NetModel, log: CaffeLog) -> NetModel:
    return replace(net, layers=tuple(_with_mean(layer, log) for layer in net.layers))


def _with_mean(layer: LayerModel, log: CaffeLog) -> LayerModel:
    """The layer, with mean_value in place of a mean file that is not there."""
    if not is_data(layer) or not lacks_mean(layer):
        return layer
    message = type(layer.message)()
    message.CopyFrom(layer.message)
    path = message.transform_param.mean_file
    message.transform_param.ClearField("mean_file")
    message.transform_param.mean_value.append(MIDDLE)
    text = (
        f'layer "{layer.name}": the mean file "{path}" is not there: {MIDDLE:g} stands in for it'
    )
    log.line(places.OWN, text)
    return replace(layer, message=message)


def _with_matrices(net: NetModel, told: set[str], log: CaffeLog) -> NetModel:
    return replace(net, layers=tuple(_with_matrix(layer, told, log) for layer in net.layers))


def _with_matrix(layer: LayerModel, told: set[str], log: CaffeLog) -> LayerModel:
    if not lacks_matrix(layer):
        return layer
    path = layer.message.infogain_loss_param.source
    text = f'layer "{layer.name}": "{path}" is not there: the identity stands in for the matrix'
    _tell(text, told, log)
    return replace(layer, stand_in=StandIn((), ()))


def _tell(text: str, told: set[str], log: CaffeLog) -> None:
    if text not in told:
        told.add(text)
        log.line(places.OWN, text)


def _shapes_there(nets: Sequence[NetModel], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Item shapes, by first top: of images that are there, else of those whose shape is told."""
    found: dict[str, Shape] = {}
    told: dict[str, Shape] = {}
    for layer in _data_layers(nets):
        if layer.type not in _IMAGES:
            continue
        top = layer.tops[0]
        if not is_missing(layer):
            found[top] = static_shapes(layer, shape=given.get(top))[0][1:]
            continue
        # What is wrong with a layer is said where it gets its stand-in.
        with suppress(DataError):
            if shape := image_shape(layer, given.get(top)):
                told[top] = transformed_shape(layer, shape)
    return told | found


def _data_layers(nets: Sequence[NetModel]) -> list[LayerModel]:
    return [layer for net in nets for layer in net.layers if is_data(layer) and layer.tops]


def _with_shapes(net: NetModel, known: _Known, faults: Faults) -> NetModel:
    layers = []
    for layer in net.layers:
        stand_in = None
        if is_data(layer) and is_missing(layer):
            try:
                stand_in = _stand_in(net, layer, known)
            except DataError as error:
                faults.extend(error)
        layers.append(replace(layer, stand_in=stand_in) if stand_in else layer)
    return replace(net, layers=tuple(layers))


def _stand_in(net: NetModel, layer: LayerModel, known: _Known) -> StandIn:
    """What stands in, its labels not yet known."""
    none = (0,) * len(layer.tops)
    top = layer.tops[0]
    if layer.type in _IMAGES:
        shape = image_shape(layer, known.given.get(top)) or known.found.get(top)
        if shape is None:
            raise DataError(_unknown(layer, top))
        return StandIn((shape,), none, _batch_size(layer))
    cls = source_class(layer.type)
    if cls and cls.follows:
        return StandIn(((layer.message.soft_labels_param.num_classes,),), none)
    declared = cls.declared_shapes(layer, known.given.get(top)) if cls else None
    if declared is not None:
        return StandIn(declared, none)
    faults = Faults(DataError)
    shapes: list[Shape] = []
    for name in layer.tops:
        try:
            shapes.append(_row_shape(net, layer, name, known))
        except DataError as error:
            faults.extend(error)
    faults.raise_if_any()
    return StandIn(tuple(shapes), none)


def _row_shape(net: NetModel, layer: LayerModel, top: str, known: _Known) -> Shape:
    """The shape of an HDF5Data top: as given, else one number an item where it is a label."""
    batch = layer.message.hdf5_data_param.batch_size
    if top in known.given:
        return (batch, *known.given[top])
    if "label" not in _readers(net, top):
        raise DataError(_unknown(layer, top))
    return (batch,)


def _readers(net: NetModel, top: str) -> set[str]:
    """What a blob is to the losses and metrics that read it."""
    return {
        role
        for layer in net.layers
        if top in layer.bottoms
        for bottom, role in zip(layer.bottoms, roles_of(layer), strict=True)
        if bottom == top
    }


def _batch_size(layer: LayerModel) -> int:
    cls = source_class(layer.type)
    # Any shape will do: the batch is what is asked for.
    shapes = cls.declared_shapes(layer, _any_image(layer)) if cls else None
    return shapes[0][0] if shapes else 1


def _any_image(layer: LayerModel) -> Shape:
    side = max(1, layer.message.transform_param.crop_size)
    return (1, side, side)


def _unknown(layer: LayerModel, top: str) -> Diagnostic:
    text = (
        f'layer "{layer.name}": "{named_path(layer)}" is not there, and nothing says what shape '
        f'an item of "{top}" has'
    )
    hint = f"say --input-shape {top}=CxHxW, or give the layer a shape"
    span = layer.source.span(("top", layer.tops.index(top))) or layer.position
    return Diagnostic("unknown-item-shape", text, span, help=(hint,))


def _with_classes(
    net: NetModel, given: Mapping[str, Shape], told: set[str], log: CaffeLog
) -> NetModel:
    """The net with labels in the range that its layers expect."""
    if not any(layer.stand_in for layer in net.layers):
        return net
    classes: dict[str, int] = {}
    for check in trace_forward(net, Emitter(), given).trace.labels:
        name = check.tensor.name
        classes[name] = min(check.classes, classes.get(name, check.classes))
    layers = []
    for layer in net.layers:
        if layer.stand_in is None or not is_data(layer):
            layers.append(layer)
            continue
        stand_in = _labelled(layer, layer.stand_in, classes)
        layers.append(replace(layer, stand_in=stand_in))
        _tell(_about(layers[-1], stand_in), told, log)
    return replace(net, layers=tuple(layers))


def _labelled(layer: LayerModel, stand_in: StandIn, classes: Mapping[str, int]) -> StandIn:
    found = [classes.get(top, 0) for top in layer.tops]
    if stand_in.batch_size:
        # Labels of images are whole numbers even where nobody says how many classes there are.
        found = [0, *(count or 2 for count in found[1:])]
    return replace(stand_in, classes=tuple(found))


def _about(layer: LayerModel, stand_in: StandIn) -> str:
    """What stands in for the data of a layer, in a sentence."""
    if layer.type == "SoftLabels":
        text = f"made-up answers of {stand_in.shapes[0][-1]} classes stand in"
        return f'layer "{layer.name}": "{named_path(layer)}" is not there: {text}'
    values = [f"0 to {count - 1}" if count else "[0, 1)" for count in stand_in.classes]
    if stand_in.batch_size:
        values[0] = "bytes before transform_param"
    shapes = static_shapes(layer)
    tops = [
        f"{top} {shape} of {what}"
        for top, shape, what in zip(layer.tops, shapes, values, strict=True)
    ]
    named = named_path(layer)
    what = f'"{named}" is not there' if named else f"{layer.type} has no data"
    return f'layer "{layer.name}": {what}: made-up data stand in, {", ".join(tops)}'
