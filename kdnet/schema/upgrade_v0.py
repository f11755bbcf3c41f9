"""From the very first format, `layers { layer { } }`, to `layers { }`, as Caffe upgrades it."""

from __future__ import annotations

from typing import Any

from kdnet.errors import Diagnostic, Faults, Note, did_you_mean
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import fields_of
from kdnet.schema.source import SourceMap

_Layer = tuple[pb.V1LayerParameter, SourceMap]
_Path = tuple[str, ...]

_TYPES = {
    "conv": "CONVOLUTION",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
} | {
    name: name.upper()
    for name in (
        *("accuracy", "bnll", "concat", "data", "dropout", "euclidean_loss", "flatten"),
        *("hdf5_data", "hdf5_output", "im2col", "infogain_loss", "lrn"),
        *("multinomial_logistic_loss", "relu", "sigmoid", "softmax", "softmax_loss"),
        *("split", "tanh", "window_data"),
    )
}

_CONV, _POOL, _IP = "convolution_param", "pooling_param", "inner_product_param"
_DATA, _IMAGES, _WINDOW = "data_param", "image_data_param", "window_data_param"
_HDF5 = "hdf5_data_param"
_ANY = ""

# Where each field went, by layer type.
_PLACES: dict[str, dict[str, _Path]] = {
    "name": {_ANY: ("name",)},
    "blobs": {_ANY: ("blobs",)},
    "blobs_lr": {_ANY: ("blobs_lr",)},
    "weight_decay": {_ANY: ("weight_decay",)},
    "scale": {_ANY: ("transform_param", "scale")},
    "meanfile": {_ANY: ("transform_param", "mean_file")},
    "cropsize": {_ANY: ("transform_param", "crop_size")},
    "mirror": {_ANY: ("transform_param", "mirror")},
    "num_output": {"conv": (_CONV, "num_output"), "innerproduct": (_IP, "num_output")},
    "biasterm": {"conv": (_CONV, "bias_term"), "innerproduct": (_IP, "bias_term")},
    "weight_filler": {"conv": (_CONV, "weight_filler"), "innerproduct": (_IP, "weight_filler")},
    "bias_filler": {"conv": (_CONV, "bias_filler"), "innerproduct": (_IP, "bias_filler")},
    "pad": {"conv": (_CONV, "pad"), "pool": (_POOL, "pad")},
    "kernelsize": {"conv": (_CONV, "kernel_size"), "pool": (_POOL, "kernel_size")},
    "stride": {"conv": (_CONV, "stride"), "pool": (_POOL, "stride")},
    "group": {"conv": (_CONV, "group")},
    "pool": {"pool": (_POOL, "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {
        "data": (_DATA, "source"),
        "hdf5_data": (_HDF5, "source"),
        "images": (_IMAGES, "source"),
        "window_data": (_WINDOW, "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "batchsize": {
        "data": (_DATA, "batch_size"),
        "hdf5_data": (_HDF5, "batch_size"),
        "images": (_IMAGES, "batch_size"),
        "window_data": (_WINDOW, "batch_size"),
    },
    "rand_skip": {"data": (_DATA, "rand_skip"), "images": (_IMAGES, "rand_skip")},
    "shuffle_images": {"images": (_IMAGES, "shuffle")},
    "new_height": {"images": (_IMAGES, "new_height")},
    "new_width": {"images": (_IMAGES, "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": (_WINDOW, "fg_threshold")},
    "det_bg_threshold": {"window_data": (_WINDOW, "bg_threshold")},
    "det_fg_fraction": {"window_data": (_WINDOW, "fg_fraction")},
    "det_context_pad": {"window_data": (_WINDOW, "context_pad")},
    "det_crop_mode": {"window_data": (_WINDOW, "crop_mode")},
    "hdf5_output_param": {"hdf5_output": ("hdf5_output_param",)},
}


def upgrade_v0(net: pb.NetParameter, source: SourceMap, faults: Faults) -> SourceMap:
    """Turn layers of the first format into `layers` of the second, in place.

    Returns the map of the result. Where ``faults`` were recorded the result is not complete.
    """
    if not any(layer.HasField("layer") for layer in net.layers):
        return source
    old = [(layer, source.at(("layers", i))) for i, layer in enumerate(net.layers)]
    new = [_upgrade_layer(*layer, faults) for layer in _fold_padding(old, faults)]
    net.ClearField("layers")
    net.layers.extend(layer for layer, _ in new)
    return source.with_child(("layers",), SourceMap.sequence([node for _, node in new]))


def _fold_padding(layers: list[_Layer], faults: Faults) -> list[_Layer]:
    """Drop padding layers; the convolution or pooling behind each takes its border over."""
    producer: dict[str, _Layer] = {}
    kept = []
    for layer, written in layers:
        node = written
        for index, bottom in enumerate(layer.bottom):
            before = producer.get(bottom)
            if before is None or before[0].layer.type != "padding":
                continue
            if _can_fold(layer, before[0]):
                node = _take_border(layer, node, before)
            else:
                _refuse_padding(node, index, before, faults)
        producer.update(dict.fromkeys(layer.top, (layer, node)))
        if layer.layer.type != "padding":
            kept.append((layer, node))
    return kept


def _can_fold(layer: pb.V1LayerParameter, padding: pb.V1LayerParameter) -> bool:
    single = len(layer.bottom) == len(padding.bottom) == len(padding.top) == 1
    return single and layer.layer.type in ("conv", "pool")


def _take_border(layer: pb.V1LayerParameter, node: SourceMap, before: _Layer) -> SourceMap:
    padding, place = before
    layer.layer.pad = padding.layer.pad
    layer.bottom[0] = padding.bottom[0]
    node = node.with_child(("layer", "pad"), place.child("layer", "pad"))
    return node.with_child(("bottom", 0), place.child("bottom", 0))


def _refuse_padding(node: SourceMap, index: int, before: _Layer, faults: Faults) -> None:
    padding, place = before
    faults.add(
        Diagnostic(
            "padding-layer",
            f'padding layer "{padding.layer.name}" must stand between one blob and the only '
            "bottom of a conv or pool layer",
            node.span(("bottom", index)),
            notes=(Note("the padding layer", place.span(("layer", "name"))),),
        )
    )


def _upgrade_layer(old: pb.V1LayerParameter, source: SourceMap, faults: Faults) -> _Layer:
    new = pb.V1LayerParameter(bottom=old.bottom, top=old.top)
    node = SourceMap(source.place)
    for name in ("bottom", "top"):
        node = node.with_child((name,), source.child(name))
    if old.layer.HasField("type"):
        new.type = _v1_type(old.layer.type, source, faults)
        node = node.with_child(("type",), source.child("layer", "type"))
    for beside in sorted(map(str, source.children.keys() - {"bottom", "top", "layer"})):
        _refuse_parameter(beside, old.layer.type, source.at((beside,)), faults)
    for field, value in old.layer.ListFields():
        if field.name == "type":
            continue
        written = source.child("layer", field.name)
        places = _PLACES.get(field.name, {})
        path = places.get(old.layer.type) or places.get(_ANY)
        if path is not None:
            node = node.with_child(_put(new, path, value), written)
        elif written is not None:
            _refuse_parameter(field.name, old.layer.type, written, faults)
    return new, node


def _v1_type(name: str, source: SourceMap, faults: Faults) -> Any:
    if name in _TYPES:
        return pb.V1LayerParameter.LayerType.Value(_TYPES[name])
    faults.add(
        Diagnostic(
            "unknown-layer-type",
            f'there is no layer type "{name}" in this old format',
            source.span(("layer", "type")),
            help=did_you_mean(name, _TYPES),
        )
    )
    return pb.V1LayerParameter.NONE


def _refuse_parameter(name: str, layer_type: str, written: SourceMap, faults: Faults) -> None:
    """A file that people write should not hold what has no effect; a weight file may."""
    faults.add(
        Diagnostic(
            "ignored-field",
            f'"{name}" has no effect in a layer of type "{layer_type}"',
            written.span(),
            help=("remove it",),
        )
    )


def _put(target: Any, path: _Path, value: Any) -> tuple[str | int, ...]:
    """Set the field at ``path`` of ``target``; returns the path of what was set."""
    *holders, name = path
    for holder in holders:
        target = getattr(target, holder)
    field = fields_of(target.DESCRIPTOR)[name]
    if field.repeated and hasattr(value, "extend"):
        getattr(target, name).extend(value)
    elif field.repeated:
        getattr(target, name).append(value)
        return (*path, 0)
    elif field.message is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)
    return path
