"""What is said of fields that only a fork of Caffe has."""

from __future__ import annotations

import pytest

from kdnet.errors import SchemaError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text
from kdnet.schema.fork_names import LAYER_FIELDS, OTHER_FIELDS

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
