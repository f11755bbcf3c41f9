"""What the configuration of a Keras model says of its layers, above all which ones flatten.

Keras flattens rows, columns, channels; Caffe channels, rows, columns. How many rows and columns
there are does not matter for the order, the number of channels does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_LONGEST = 1 << 24
_MOST_LAYERS = 1 << 12
_MODELS = ("Functional", "Model", "Sequential")
# Layers whose tops have one channel a filter.
_FILTERS = (
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "SeparableConv2D",
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
)
# Layers without weights that pass on what they get in the same order.
_PASSING = (
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "ELU",
    "GaussianDropout",
    "GaussianNoise",
    "LeakyReLU",
    "ReLU",
    "Softmax",
    "SpatialDropout2D",
)
# Layers that keep the channels of what they get.
_KEEPING = (
    *_PASSING,
    "Add",
    "AveragePooling1D",
    "AveragePooling2D",
    "Average",
    "BatchNormalization",
    "Cropping2D",
    "LayerNormalization",
    "MaxPooling1D",
    "MaxPooling2D",
    "Maximum",
    "Multiply",
    "PReLU",
    "Rescaling",
    "UpSampling2D",
    "ZeroPadding2D",
)


class _Layer(NamedTuple):
    kind: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]


class Config(NamedTuple):
    """What a model's configuration says: the class of each layer, and what dense ones flatten.

    ``flattened`` has the channels of the maps whose Flatten a dense layer reads; ``unknown``
    names layers whose columns or channels may be in Keras's order, or not.
    """

    classes: Mapping[str, str]
    flattened: Mapping[str, int]
    unknown: tuple[str, ...]


def read_config(text: Any) -> Config | None:
    """The configuration in a model's attribute; None where there is none, or another kind."""
    if not isinstance(text, str | bytes) or len(text) > _LONGEST:
        return None
    try:
        layers = dict(_layers(json.loads(text)))
        flattened = {
            name: _flattened(layers, layer.inputs)
            for name, layer in layers.items()
            if layer.kind == "Dense"
        }
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return None
    classes = {name: layer.kind for name, layer in layers.items()}
    inner = tuple(name for name, kind in classes.items() if kind in _MODELS)
    unknown = tuple(name for name, channels in flattened.items() if channels is None)
    known = {name: channels for name, channels in flattened.items() if channels}
    return Config(classes, known, (*inner, *unknown))


def _layers(model: Mapping[str, Any]) -> Iterator[tuple[str, _Layer]]:
    config = model["config"]
    rows = config["layers"] if isinstance(config, dict) else config
    if len(rows) > _MOST_LAYERS:
        raise ValueError
    names = {row["config"]["name"] for row in rows}
    before: tuple[str, ...] = ()
    for row in rows:
        name = row["config"]["name"]
        inputs = before
        if model["class_name"] != "Sequential":
            inputs = tuple(
                dict.fromkeys(one for one in _texts(row["inbound_nodes"]) if one in names)
            )
        yield name, _Layer(row["class_name"], row["config"], inputs)
        before = (name,)


def _texts(value: Any) -> Iterator[str]:
    """Every text within lists and objects: Keras 2 and 3 nest the names of inputs differently."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _flattened(layers: Mapping[str, _Layer], inputs: tuple[str, ...]) -> int | None:
    """The channels of the maps whose Flatten a layer reads; 0 for no Flatten, None if unknown."""
    in_order = True
    for _ in layers:
        if len(inputs) != 1:
            return 0
        layer = layers[inputs[0]]
        if layer.kind == "Flatten":
            return _channels(layers, layer.inputs) if in_order else None
        if layer.kind not in _KEEPING:
            return 0
        # The weights of what stands between are in Keras's order too.
        in_order &= layer.kind in _PASSING
        inputs = layer.inputs
    return 0


def _channels(layers: Mapping[str, _Layer], inputs: tuple[str, ...]) -> int | None:
    """The channels of a top in the last place, None where they are not known."""
    factor = 1
    for _ in layers:
        if not inputs:
            return None
        layer = layers[inputs[0]]
        if layer.config.get("data_format") == "channels_first":
            return 1
        if layer.kind in _FILTERS:
            return factor * int(layer.config["filters"])
        if layer.kind == "InputLayer":
            return factor * _last_of_map(layer.config)
        if layer.kind == "DepthwiseConv2D":
            factor *= int(layer.config["depth_multiplier"])
        elif layer.kind not in _KEEPING:
            return None
        inputs = layer.inputs
    return None


def _last_of_map(config: Mapping[str, Any]) -> int:
    """The channels of an input; one where it has rows and columns only, or less."""
    shape: list[Any] = config.get("batch_shape") or config.get("batch_input_shape") or []
    return int(shape[-1]) if len(shape) == 4 else 1
