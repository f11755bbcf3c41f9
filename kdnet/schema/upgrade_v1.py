"""From the `layers { }` format of 2013 to `layer { }`, as Caffe upgrades it."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Span
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import enum_name, field_names
from kdnet.schema.source import SourceMap

# The holder of the deprecated fields that each type of data layer reads.
TRANSFORMED = {
    pb.V1LayerParameter.DATA: "data_param",
    pb.V1LayerParameter.IMAGE_DATA: "image_data_param",
    pb.V1LayerParameter.WINDOW_DATA: "window_data_param",
}
DATA_HOLDERS = tuple(TRANSFORMED.values())
TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")

TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "THRESHOLD": "Threshold",
}

# One value per weight in the old format, one ParamSpec per weight in the new one.
_PARAM_SPEC = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}
_APART = {"type", "layer", *_PARAM_SPEC}
_SAME = tuple(name for name in field_names(pb.V1LayerParameter) if name not in _APART)


def move_transforms(net: pb.NetParameter, source: SourceMap) -> SourceMap:
    """Move deprecated fields of data layers to transform_param, in place.

    Only `layers` are treated: in a `layer`, Caffe never read those fields.
    """
    for index, layer in enumerate(net.layers):
        holder = TRANSFORMED.get(layer.type)
        if holder is None:
            continue
        old = getattr(layer, holder)
        for name in (name for name in TRANSFORM_FIELDS if old.HasField(name)):
            setattr(layer.transform_param, name, getattr(old, name))
            old.ClearField(name)
            written = ("layers", index, holder, name)
            place = source.child(*written)
            if place is not None:
                source = source.with_child(("layers", index, "transform_param", name), place)
                source = source.with_child(written, None)
    return source


def upgrade_v1(net: pb.NetParameter, source: SourceMap) -> SourceMap:
    """Turn every `layers` into a `layer`, in place; returns the map of the result."""
    if not net.layers:
        return source
    nodes = []
    for index, old in enumerate(net.layers):
        new = net.layer.add()
        nodes.append(_upgrade_layer(old, new, source.at(("layers", index))))
    net.ClearField("layers")
    source = source.with_child(("layers",), None)
    return source.with_child(("layer",), SourceMap.sequence(nodes))


def _upgrade_layer(
    old: pb.V1LayerParameter, new: pb.LayerParameter, source: SourceMap
) -> SourceMap:
    children: dict[str | int, SourceMap] = {
        name: node for name, node in source.children.items() if name in _SAME or name == "type"
    }
    present = {field.name for field, _ in old.ListFields()}
    for name in (name for name in _SAME if name in present):
        _copy(old, new, name)
    if old.HasField("type"):
        new.type = TYPES[enum_name(pb.V1LayerParameter.LayerType, old.type)]
    specs = list(_param_specs(old, new, source))
    if specs:
        children["param"] = SourceMap.sequence(specs)
    return SourceMap(source.place, children)


def _copy(old: pb.V1LayerParameter, new: pb.LayerParameter, name: str) -> None:
    value, target = getattr(old, name), getattr(new, name)
    if hasattr(target, "extend"):
        target.extend(value)
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(new, name, value)


def _param_specs(
    old: pb.V1LayerParameter, new: pb.LayerParameter, source: SourceMap
) -> Iterator[SourceMap]:
    for index in range(max(len(getattr(old, name)) for name in _PARAM_SPEC)):
        spec = new.param.add()
        children: dict[str | int, SourceMap] = {}
        place: Span | None = None
        for old_name, new_name in _PARAM_SPEC.items():
            if index < len(getattr(old, old_name)):
                setattr(spec, new_name, getattr(old, old_name)[index])
                node = source.child(old_name, index)
                if node is not None:
                    children[new_name] = node
                    place = place or node.place
        yield SourceMap(place, children)
