"""Multiply-accumulates, operations, parameters and activations against numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from all_nets import ROOT

from kdnet.compile.cost import Cost, cost_of, layer_of, op_cost
from kdnet.compile.forward import Forward, trace_forward
from kdnet.graph import Emitter
from kdnet.net import NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net, read_text


def traced(text: str) -> Forward:
    located = read_text(text, "net.prototxt", pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(pb.TEST))
    return trace_forward(net, Emitter())


def cost(body: str, shape: str) -> Cost:
    dims = " ".join(f"dim: {extent}" for extent in shape.split("x"))
    data = f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
    return cost_of(traced(f"{data}\n{body}"))


def shipped(path: str, head: str, crop: int | None = None) -> Cost:
    """What one image costs, in TEST phase and up to the logits."""
    located = read_net(str(ROOT / "nets" / path))
    for layer in located.message.layer:
        if layer.type == "Data":
            layer.data_param.batch_size = 1
            if crop:
                layer.transform_param.crop_size = crop
    net = resolve_net(located.message, located.source, NetState(pb.TEST))
    return cost_of(trace_forward(net, Emitter()), [head])


CONVOLUTION = """layer {
  name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 8 kernel_h: 3 kernel_w: 5 stride: 2 group: 2 %s }
}"""


def test_a_convolution_with_groups() -> None:
    found = cost(CONVOLUTION % "", "2x6x11x13").layers[0]
    outputs = 2 * 8 * 5 * 5
    assert found.macs == outputs * 3 * 3 * 5
    assert found.flops == 2 * found.macs + outputs
    assert found.parameters == 8 * 3 * 3 * 5 + 8
    assert found.activation_bytes == 4 * outputs
    without = cost(CONVOLUTION % "bias_term: false", "2x6x11x13").layers[0]
    assert (without.macs, without.flops) == (found.macs, 2 * found.macs)
    assert without.parameters == found.parameters - 8


def test_a_transposed_convolution() -> None:
    g = Emitter()
    weight = g.input("w", (6, 4 // 2, 3, 3))
    y = g.op("ConvTranspose", g.input("x", (1, 6, 5, 5)), weight, strides=[2, 2], group=2)
    found = op_cost(g.ops[-1])
    assert found.macs == 6 * 5 * 5 * (4 // 2) * 3 * 3
    assert found.flops == 2 * found.macs
    assert found.activation_bytes == 4 * 4 * 11 * 11 == 4 * y.size


@pytest.mark.parametrize("transpose", ["false", "true"])
def test_an_inner_product(transpose: str) -> None:
    body = f"""layer {{
      name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      inner_product_param {{ num_output: 7 transpose: {transpose} }}
    }}"""
    found = cost(body, "3x2x4").layers[0]
    assert (found.macs, found.flops) == (3 * 8 * 7, 2 * 3 * 8 * 7 + 21)
    assert found.parameters == 8 * 7 + 7
    assert found.activation_bytes == 4 * (3 * 8 + 3 * 7)


@pytest.mark.parametrize(
    ("body", "operations"),
    [
        ('type: "ReLU"', 96),
        ('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', 24 * 4),
        ('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', 96),
        ('type: "Softmax"', 96),
        ('type: "Flatten"', 0),
        ('type: "Scale"', 96),
        ('type: "BatchNorm"', 96),
    ],
)
def test_operations_of_other_layers(body: str, operations: int) -> None:
    found = cost(f'layer {{ name: "y" bottom: "x" top: "y" {body} }}', "2x3x4x4")
    assert found.macs == 0
    assert found.flops == operations


def test_the_taps_of_lrn_are_operations_and_no_products_of_weights() -> None:
    body = 'layer { name: "n" type: "LRN" bottom: "x" top: "y" lrn_param { alpha: 0.5 } }'
    found = cost(body, "1x8x2x2")
    taps = sum(min(8, c + 3) - max(0, c - 2) for c in range(8))
    assert found.macs == 0
    squares, times_alpha, plus_k, log, times_beta, exp, product = [32] * 7
    rest = squares + times_alpha + plus_k + log + times_beta + exp + product
    assert found.flops == 2 * taps * 4 + rest


def test_arithmetic_on_weights_alone_is_no_cost_of_an_item() -> None:
    one = cost('layer { name: "n" type: "BatchNorm" bottom: "x" top: "y" }', "1x6x2x2")
    assert one.flops == 24
    assert one.activation_bytes == 96
    assert one.parameters == 13


def test_shared_weights_are_counted_once_and_products_each_time() -> None:
    layer = """layer {
      name: "%s" type: "InnerProduct" bottom: "%s" top: "%s"
      param { name: "w" } param { name: "b" }
      inner_product_param { num_output: 4 }
    }"""
    found = cost(layer % ("a", "x", "y") + layer % ("b", "y", "z"), "1x4")
    assert [part.macs for part in found.layers] == [16, 16]
    assert [part.parameters for part in found.layers] == [20, 0]
    assert found.parameters == 20


def test_what_no_output_needs_costs_nothing() -> None:
    forward = traced("""
      layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }
      layer { name: "a" type: "InnerProduct" bottom: "x" top: "a"
        inner_product_param { num_output: 2 } }
      layer { name: "b" type: "InnerProduct" bottom: "x" top: "b"
        inner_product_param { num_output: 3 } }""")
    assert [part.layer for part in cost_of(forward).layers] == ["a", "b"]
    assert [part.layer for part in cost_of(forward, ["b"]).layers] == ["b"]
    assert cost_of(forward, ["b"]).macs == 12


def test_an_op_belongs_to_the_layer_with_the_longest_name() -> None:
    forward = traced("""
      layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }
      layer { name: "a" type: "ReLU" bottom: "x" top: "a" }
      layer { name: "a/b" type: "TanH" bottom: "a" top: "b" }""")
    owners = [layer_of(forward.net, op) for op in forward.g.ops]
    assert [layer.name for layer in owners if layer] == ["a", "a/b"]


def test_a_product_of_two_blobs() -> None:
    g = Emitter()
    g.matmul(g.input("a", (2, 3, 4)), g.input("b", (2, 4, 5)))
    assert op_cost(g.ops[-1]).macs == 2 * 3 * 4 * 5
    g.gemm(g.input("c", (4, 3)), g.constant(np.eye(4)), trans_a=True)
    assert op_cost(g.ops[-1])[:2] == (0, 2 * 3 * 4)


def test_lenet() -> None:
    found = shipped("mnist/lenet_joined.prototxt", "teacher/ip2")
    by_layer = {part.layer: part.macs for part in found.layers if part.macs}
    assert by_layer == {
        "teacher/conv1": 20 * 24 * 24 * 25,
        "teacher/conv2": 50 * 8 * 8 * 20 * 25,
        "teacher/ip1": 800 * 500,
        "teacher/ip2": 5000,
    }
    assert found.macs == 2_293_000
    assert found.parameters == 431_080


@pytest.mark.parametrize(
    ("path", "head", "crop", "macs", "parameters"),
    [
        # Two groups in conv2, conv4 and conv5.
        ("imagenet/alexnet.prototxt", "fc8", 227, 724_406_816, 60_965_224),
        ("imagenet/vgg16.prototxt", "fc8", None, 15_470_264_320, 138_357_544),
        # The stride is in the 1 x 1 convolutions, as in the authors' own net. Beside the usual
        # 25,557,032 values: 64 biases of conv1, and BatchNorm's 53,120 statistics and 53 factors.
        ("imagenet/resnet50.prototxt", "fc1000", None, 3_857_973_248, 25_610_269),
    ],
)
def test_known_nets(path: str, head: str, crop: int | None, macs: int, parameters: int) -> None:
    found = shipped(path, head, crop)
    assert found.macs == macs
    assert found.parameters == parameters
