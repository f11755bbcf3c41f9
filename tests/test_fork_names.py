"""What is said of fields that only a fork of Caffe has."""

from __future__ import annotations

import pytest

from kdnet.compile import trace_forward
from kdnet.errors import LayerError, SchemaError
from kdnet.graph import Emitter, to_model
from kdnet.layers import layer_types
from kdnet.net import NetState, resolve_net
from kdnet.schema import SourceMap, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fork_names import LAYER_FIELDS, OTHER_FIELDS, TYPES

LISTS = "kdnet layers lists the layer types of kdnet"


def help_of(text: str) -> tuple[str, ...]:
    with pytest.raises(SchemaError) as caught:
        read_text(text, "a.prototxt", pb.NetParameter)
    (fault,) = caught.value.diagnostics
    assert fault.code == "unknown-field"
    return fault.help


def in_layer(field: str) -> tuple[str, ...]:
    return help_of(f'layer {{ name: "x" type: "X" {field} {{ a: 1 b {{ }} }} }}')


def test_a_forks_layer_is_named_with_the_fork() -> None:
    assert in_layer("roi_pooling_param") == (
        f"rbgirshick/caffe-fast-rcnn has it, for ROIPooling; {LISTS}",
    )


def test_parameters_of_no_known_layer_are_not_taken_for_anothers() -> None:
    assert in_layer("mask_pooling_param") == (f"{LISTS}, and each one's parameters",)


def test_a_slip_of_the_pen_is_still_told() -> None:
    assert in_layer("convolutoin_param") == ('did you mean "convolution_param"?',)
    assert in_layer("batchnorm_param") == ('did you mean "batch_norm_param"?',)
    assert help_of('layer { nmae: "x" }') == ('did you mean "name"?',)


def test_a_field_of_another_message_is_said_to_be_of_a_fork() -> None:
    text = "layer { loss_param { pre_fixed_normalizer: 128 } }"
    assert help_of(text) == ("a field of daijifeng001/caffe-rfcn",)


def test_what_is_listed_is_not_in_the_schema() -> None:
    assert not set(LAYER_FIELDS) & set(pb.LayerParameter.DESCRIPTOR.fields_by_name)
    for message, fields in OTHER_FIELDS.items():
        assert not set(fields) & set(getattr(pb, message).DESCRIPTOR.fields_by_name), message


def test_a_forks_layer_type_is_named_with_the_fork() -> None:
    read = read_text('layer { name: "x" type: "ROIPooling" }', "a.prototxt", pb.NetParameter)
    net = resolve_net(read.message, read.source, NetState(pb.TRAIN))
    with pytest.raises(LayerError) as caught:
        trace_forward(net, Emitter())
    (fault,) = caught.value.diagnostics
    assert fault.code == "unknown-layer-type"
    assert fault.help == (f"rbgirshick/caffe-fast-rcnn has it; {LISTS}",)


def test_listed_types_are_not_kdnets() -> None:
    assert not set(TYPES) & set(layer_types())


PLAIN = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
        convolution_param { num_output: 2 kernel_size: 3 } }
"""
HINTED = """
default_forward_type: FLOAT16 default_backward_type: FLOAT16 default_forward_math: FLOAT16
default_backward_math: FLOAT global_grad_scale: 1000 global_grad_scale_adaptive: true
default_conv_algos_override: "7,5,7" reduce_buckets: 3 default_cudnn_math_override: 0
eltwise_mem_sharing: false mem_param { optimize_train: true exclude_blob: "x" }
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y" forward_type: FLOAT16
        backward_type: FLOAT16 forward_math: FLOAT backward_math: FLOAT16 cudnn_math_override: 1
        engine: "MKL2017" convolution_param { num_output: 2 kernel_size: 3
        cudnn_convolution_algo_seeker: GET conv_algos_override: "1,1,1" } }
"""


def graph(text: str) -> bytes:
    """The net without its places, which the nodes' metadata tell."""
    read = read_text(text, "a.prototxt", pb.NetParameter)
    net = resolve_net(read.message, SourceMap.empty(), NetState(pb.TRAIN))
    emitter = Emitter()
    forward = trace_forward(net, emitter)
    inputs = [forward.blobs["x"], *forward.weights]
    made = to_model(emitter.ops, inputs, {"y": forward.blobs["y"]}, name="n")
    return made.SerializeToString(deterministic=True)


def test_what_tells_a_fork_how_to_compute_changes_nothing() -> None:
    assert graph(HINTED) == graph(PLAIN)
