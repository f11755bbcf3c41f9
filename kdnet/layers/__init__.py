"""One class a Caffe layer type: its weights, its checks, and its forward pass in ONNX ops."""

from kdnet.layers.base import DataLayer, Layer, Stored, Weight, layer
from kdnet.layers.readings import class_axis, ignored_label, is_data, params_of, roles_of
from kdnet.layers.registry import layer_class, layer_types
from kdnet.layers.spec import LayerFunction, layer_function
from kdnet.layers.trace import LabelCheck, Noise, Trace, scalar_name

__all__ = [
    "DataLayer",
    "LabelCheck",
    "Layer",
    "Noise",
    "Stored",
    "Trace",
    "Weight",
    "class_axis",
    "ignored_label",
    "is_data",
    "layer",
    "layer_class",
    "layer_types",
    "params_of",
    "roles_of",
    "scalar_name",
]


def __getattr__(name: str) -> LayerFunction:
    """``layers.Convolution`` and so on: the functions by which a NetSpec is written."""
    return layer_function(name)
