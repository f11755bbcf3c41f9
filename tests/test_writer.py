"""The canonical text of a message."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from messages import messages

from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text, write_text

GOLDEN = Path(__file__).parent / "golden"

CANONICAL = """\
name: "n"
layer {
  name: "conv"
  type: "Convolution"
  bottom: "data"
  top: "conv"
  phase: TEST
  loss_weight: 0.5
  param {
    lr_mult: 0
  }
  propagate_down: false
  include { }
  convolution_param {
    num_output: 20
    kernel_size: 3
    kernel_size: 5
    weight_filler {
      std: 0.1
    }
  }
  reshape_param {
    shape { dim: 0 dim: -1 }
  }
}
"""


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages())
def test_reads_back_as_the_same_message(message):
    text = write_text(message)
    assert read_text(text, "net.prototxt", type(message)).message == message
    assert text_format.Parse(text, type(message)()) == message
    assert write_text(read_text(text, "again", type(message)).message) == text


def test_looks_like_what_people_write():
    layer = pb.LayerParameter()
    layer.convolution_param.num_output = 20
    layer.convolution_param.kernel_size.extend([3, 5])
    layer.convolution_param.weight_filler.std = 0.1
    layer.param.add(lr_mult=0)
    layer.bottom.append("data")
    layer.top.append("conv")
    layer.loss_weight.append(0.5)
    layer.type = "Convolution"
    layer.name = "conv"
    layer.phase = pb.TEST
    layer.propagate_down.append(False)
    layer.include.add()
    layer.reshape_param.shape.dim.extend([0, -1])
    assert write_text(pb.NetParameter(name="n", layer=[layer])) == CANONICAL


def test_a_solver_starts_with_its_net():
    solver = pb.SolverParameter(test_iter=[100], base_lr=0.01, net="net.prototxt", test_interval=5)
    assert write_text(solver).splitlines()[0] == 'net: "net.prototxt"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (-0.0, "-0"),
        (5e-4, "0.0005"),
        (1e-5, "1e-05"),
        (16777216.0, "16777216"),
        (0.00392156885937, "0.003921569"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
    ],
)
def test_floats_are_as_short_as_can_be(value, text):
    assert write_text(pb.PowerParameter(scale=value)) == f"scale: {text}\n"


def test_doubles_keep_all_their_digits():
    blob = pb.BlobProto(double_data=[0.1 + 0.2, 1.0])
    assert write_text(blob) == "double_data: 0.30000000000000004\ndouble_data: 1\n"


def test_strings_and_bytes_are_escaped():
    assert write_text(pb.NetParameter(name='é "\\\n\t\r\0\x7f')) == (
        'name: "é \\"\\\\\\n\\t\\r\\000\\177"\n'
    )
    assert write_text(pb.BlobProto(raw_data=b'\xff"a\0001')) == 'raw_data: "\\377\\"a\\0001"\n'


def test_fields_without_a_name_are_left_out():
    net = pb.NetParameter.FromString(b"\x0a\x01n" + b"\xfa\x3f\x01x")
    assert write_text(net) == 'name: "n"\n'


def test_an_empty_message_is_an_empty_text():
    assert write_text(pb.NetParameter()) == ""


def test_what_caffe_wrote_reads_back():
    net = pb.NetParameter.FromString((GOLDEN / "schema_v2.caffemodel").read_bytes())
    assert read_text(write_text(net), "net.prototxt", pb.NetParameter).message == net
