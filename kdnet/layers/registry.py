"""The table of layer types, filled by importing every module of this package once."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from kdnet.errors import Diagnostic, LayerError
from kdnet.schema import unknown_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdnet.layers.base import Layer
    from kdnet.net import LayerModel

_CLASSES: dict[str, type[Layer]] = {}


def register(type_name: str, cls: type[Layer]) -> None:
    """Add a class under its Caffe type; two for one type is a fault of the program."""
    if type_name in _CLASSES:
        raise ValueError(
            f"two layers of type {type_name}: "
            f"{_CLASSES[type_name].__module__} and {cls.__module__}"
        )
    _CLASSES[type_name] = cls


@cache
def _classes() -> Mapping[str, type[Layer]]:
    package = importlib.import_module("kdnet.layers")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    return _CLASSES


def layer_types() -> tuple[str, ...]:
    """Every layer type, sorted."""
    return tuple(sorted(_classes()))


def class_of_type(type_name: str) -> type[Layer]:
    """The class of a type that :func:`layer_types` lists."""
    return _classes()[type_name]


def layer_class(model: LayerModel) -> type[Layer]:
    """The class of a layer.

    Raises:
        LayerError: unknown-layer-type, with the nearest known type.
    """
    found = _classes().get(model.type)
    if found is None:
        text = f'layer "{model.name}": there is no layer type "{model.type}"'
        hint = unknown_type(model.type, _classes())
        span = model.source.span(("type",))
        raise LayerError(Diagnostic("unknown-layer-type", text, span, help=hint))
    return found
