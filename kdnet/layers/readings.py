"""What a loss or a metric says of its bottoms, read off the net without tracing it."""

from __future__ import annotations

from typing import Any

from kdnet.layers.base import DataLayer
from kdnet.layers.registry import layer_class
from kdnet.net import LayerModel


def is_data(layer: LayerModel) -> bool:
    """Whether a layer's tops come from outside."""
    return issubclass(layer_class(layer), DataLayer)


def roles_of(layer: LayerModel) -> tuple[str, ...]:
    """What each bottom is to a loss or a metric; "" for other layers."""
    return layer_class(layer).roles_in(len(layer.bottoms))


def params_of(layer: LayerModel) -> Any:
    """The layer's own parameter message; None for a type without one."""
    name = layer_class(layer).params_field
    return getattr(layer.message, name) if name else None


def class_axis(layer: LayerModel) -> int:
    """The axis of the classes: the parameter ``axis``, or 1."""
    return int(getattr(params_of(layer), "axis", 1))


def ignored_label(layer: LayerModel) -> int | None:
    """The label that is not counted, from the layer's parameters or its loss_param."""
    for params in (params_of(layer), layer.message.loss_param):
        known = params is not None and "ignore_label" in params.DESCRIPTOR.fields_by_name
        if known and params.HasField("ignore_label"):
            return int(params.ignore_label)
    return None
