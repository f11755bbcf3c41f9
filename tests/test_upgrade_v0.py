"""The first format of layers, of which no net can be made without its data, in today's."""

import pytest

from kdnet.schema import SourceMap, field_names, read_text, upgrade_net
from kdnet.schema import kdnet_pb2 as pb

TYPES = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}

# Type, fields in the first format, fields in today's.
LAYERS = [
    (
        "conv",
        "num_output: 8 biasterm: false weight_filler { std: 2 } bias_filler { value: 3 } pad: 4 "
        "kernelsize: 5 group: 6 stride: 7 blobs { num: 1 } blobs { num: 2 } blobs_lr: [1, 2] "
        "weight_decay: [3]",
        "convolution_param { num_output: 8 bias_term: false weight_filler { std: 2 } "
        "bias_filler { value: 3 } pad: 4 kernel_size: 5 group: 6 stride: 7 } "
        "blobs { num: 1 } blobs { num: 2 } "
        "param { lr_mult: 1 decay_mult: 3 } param { lr_mult: 2 }",
    ),
    (
        "innerproduct",
        "num_output: 8 biasterm: true weight_filler { std: 2 } bias_filler { value: 3 }",
        "inner_product_param { num_output: 8 bias_term: true weight_filler { std: 2 } "
        "bias_filler { value: 3 } }",
    ),
    (
        "pool",
        "pool: STOCHASTIC pad: 1 kernelsize: 2 stride: 3",
        "pooling_param { pool: STOCHASTIC pad: 1 kernel_size: 2 stride: 3 }",
    ),
    ("dropout", "dropout_ratio: 0.25", "dropout_param { dropout_ratio: 0.25 }"),
    (
        "lrn",
        "local_size: 3 alpha: 4 beta: 5 k: 6",
        "lrn_param { local_size: 3 alpha: 4 beta: 5 k: 6 }",
    ),
    (
        "data",
        'source: "s" batchsize: 2 rand_skip: 3 scale: 4 meanfile: "m" cropsize: 5 mirror: true',
        'data_param { source: "s" batch_size: 2 rand_skip: 3 } '
        'transform_param { scale: 4 mean_file: "m" crop_size: 5 mirror: true }',
    ),
    (
        "images",
        'source: "s" batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 4 new_width: 5',
        'image_data_param { source: "s" batch_size: 2 rand_skip: 3 shuffle: true new_height: 4 '
        "new_width: 5 }",
    ),
    (
        "window_data",
        'source: "s" batchsize: 2 det_fg_threshold: 3 det_bg_threshold: 4 det_fg_fraction: 5 '
        'det_context_pad: 6 det_crop_mode: "square"',
        'window_data_param { source: "s" batch_size: 2 fg_threshold: 3 bg_threshold: 4 '
        'fg_fraction: 5 context_pad: 6 crop_mode: "square" }',
    ),
    ("hdf5_data", 'source: "s" batchsize: 2', 'hdf5_data_param { source: "s" batch_size: 2 }'),
    (
        "hdf5_output",
        'hdf5_output_param { file_name: "f" }',
        'hdf5_output_param { file_name: "f" }',
    ),
    ("infogain_loss", 'source: "s"', 'infogain_loss_param { source: "s" }'),
    ("concat", "concat_dim: 0", "concat_param { concat_dim: 0 }"),
    ("relu", 'name: "r"', 'name: "r"'),
]
# No layer ever read these.
WITHOUT_EFFECT = {"new_num", "new_channels"}


def read(text):
    return read_text(text, "net.prototxt", pb.NetParameter)


@pytest.mark.parametrize(("layer_type", "old", "new"), LAYERS, ids=[row[0] for row in LAYERS])
def test_every_parameter_arrives(layer_type, old, new):
    located = read(f'layers {{ layer {{ type: "{layer_type}" {old} }} bottom: "b" top: "t" }}')
    net, source = upgrade_net(located.message, located.source)
    wanted = f'layer {{ type: "{TYPES[layer_type]}" bottom: "b" top: "t" {new} }}'
    assert net == read(wanted).message
    recorded = source.child("layer", 0)
    assert set(recorded.children) == {field.name for field, _ in net.layer[0].ListFields()}


def test_the_table_has_every_field():
    known = set(field_names(pb.V0LayerParameter)) - {"type"} - WITHOUT_EFFECT
    tried = set()
    for _, old, _ in LAYERS:
        layer = read_text(old, "layer", pb.V0LayerParameter).message
        tried |= {field.name for field, _ in layer.ListFields()}
    assert tried == known


def test_types():
    net = pb.NetParameter(layers=[{"layer": {"type": name}} for name in TYPES])
    new, _ = upgrade_net(net, SourceMap.empty())
    assert [layer.type for layer in new.layer] == list(TYPES.values())


def test_parameters_without_effect_are_dropped_from_weight_files():
    net = pb.NetParameter(layers=[{"layer": {"name": "r", "type": "relu", "num_output": 3}}])
    layer = upgrade_net(net, SourceMap.empty())[0].layer[0]
    assert layer == pb.LayerParameter(name="r", type="ReLU")


def test_padding_is_folded_into_what_follows():
    located = read(
        """
        layers { layer { name: "p" type: "padding" pad: 3 } bottom: "data" top: "p" }
        layers { layer { name: "c" type: "pool" pad: 1 kernelsize: 3 } bottom: "p" top: "c" }
        """
    )
    net, source = upgrade_net(located.message, located.source)
    (layer,) = net.layer
    assert list(layer.bottom) == ["data"]
    assert layer.pooling_param.pad == 3
    assert source.span(("layer", 0, "bottom", 0)).line == 2
    assert source.span(("layer", 0, "pooling_param", "pad")).line == 2
    assert source.span(("layer", 0, "pooling_param", "kernel_size")).line == 3
