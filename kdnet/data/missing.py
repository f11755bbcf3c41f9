"""Which data and mean files that a net names are not there."""

from __future__ import annotations

from pathlib import Path

from kdnet.data.datum import Shape
from kdnet.data.hdf5_files import listed
from kdnet.data.located import span_of
from kdnet.data.mean import read_mean
from kdnet.data.paths import find
from kdnet.data.source import source_class
from kdnet.data.transform import transformed_shape
from kdnet.errors import DataError
from kdnet.net import LayerModel

_PARAMS = {
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "MemoryData": "memory_data_param",
    "SoftLabels": "soft_labels_param",
    "WindowData": "window_data_param",
}
COLOUR_CHANNELS = 3


def named_path(layer: LayerModel) -> str | None:
    """The data that a layer names, perhaps ""; None for a layer that reads no file."""
    params = _PARAMS.get(layer.type)
    return str(getattr(layer.message, params).source) if params else None


def is_missing(layer: LayerModel) -> bool:
    """Whether a data layer names data that are not there; an Input layer never has any."""
    path = named_path(layer)
    if path is None:
        return layer.type == "Input"
    found = _found(layer, path, _PARAMS[layer.type], "source")
    if found is None or layer.type != "HDF5Data":
        return found is None
    try:
        listed(found)
    except DataError as error:
        return error.diagnostics[0].code == "missing-hdf5"
    return False


def lacks_matrix(layer: LayerModel) -> bool:
    """Whether an InfogainLoss names a matrix that is not there."""
    path = layer.message.infogain_loss_param.source
    lacks = layer.type == "InfogainLoss" and bool(path)
    return lacks and _found(layer, path, "infogain_loss_param", "source") is None


def lacks_mean(layer: LayerModel) -> bool:
    """Whether transform_param names a mean file that is not there."""
    path = layer.message.transform_param.mean_file
    return bool(path) and _found(layer, path, "transform_param", "mean_file") is None


def image_shape(layer: LayerModel, given: Shape | None) -> Shape | None:
    """What is known of the shape of a layer's images before the crop, without opening them.

    The first that is known of: a mean image that fits, what the layer or ``given`` states, and
    colour images of the crop's size (as many channels as there are mean_values).

    Raises:
        DataError: what the layer's own parameters are refused for.
    """
    cls = source_class(layer.type)
    declared = cls.declared_shapes(layer, given) if cls else None
    mean = _mean_shape(layer)
    if mean and declared in (None, ()):
        return mean
    if mean and declared and transformed_shape(layer, mean) == declared[0][1:]:
        return mean
    if declared:
        return declared[0][1:]
    param = layer.message.transform_param
    if not param.crop_size:
        return None
    colours = max(1, len(param.mean_value)) if len(param.mean_value) > 1 else COLOUR_CHANNELS
    channels = 1 if param.force_gray else colours
    return (channels, param.crop_size, param.crop_size)


def _mean_shape(layer: LayerModel) -> Shape | None:
    path = layer.message.transform_param.mean_file
    found = _found(layer, path, "transform_param", "mean_file") if path else None
    return read_mean(found).shape if found else None


def _found(layer: LayerModel, path: str, *at: str) -> Path | None:
    span = layer.source.span(at) or span_of(layer)
    return find(path, span.file if span else None)
