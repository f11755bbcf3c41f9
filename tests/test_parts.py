"""Which layers are data, fixed, frozen and moving, and what a blob needs."""

from __future__ import annotations

import pytest

from kdnet.compile import trace_forward
from kdnet.compile.parts import parts_of
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, feeders, last_makers, needed, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

NET = """
layer { name: "in" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }
layer { name: "t" type: "InnerProduct" bottom: "half" top: "t" param { lr_mult: 0 }
        param { lr_mult: 0 } inner_product_param { num_output: 4 } }
layer { name: "t_relu" type: "ReLU" bottom: "t" top: "t" }
layer { name: "s" type: "InnerProduct" bottom: "half" top: "s"
        inner_product_param { num_output: 4 } }
layer { name: "bn" type: "BatchNorm" bottom: "t" top: "bn" }
layer { name: "sum" type: "Eltwise" bottom: "s" bottom: "t" top: "sum" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "label" }
"""
PARTS = ["data", "fixed", "frozen", "frozen", "moving", "moving", "moving", "moving"]


def net_of(text: str) -> NetModel:
    located = read_text(text, "net.prototxt", pb.NetParameter)
    return resolve_net(located.message, located.source, NetState(pb.TRAIN))


def test_every_layer_has_its_part() -> None:
    forward = trace_forward(net_of(NET), Emitter())
    assert [part.value for part in parts_of(forward)] == PARTS


def test_a_teachers_statistics_stand_still_in_test_phase() -> None:
    text = NET.replace('name: "bn" type', 'name: "bn" phase: TEST type')
    forward = trace_forward(net_of(text), Emitter())
    assert parts_of(forward)[5].value == "frozen"


@pytest.mark.parametrize(
    ("blobs", "layers"),
    [(["t"], (0, 1, 2, 3)), (["half"], (0, 1)), (["s", "bn"], (0, 1, 2, 3, 4, 5))],
)
def test_a_blob_needs_what_it_is_made_of(blobs: list[str], layers: tuple[int, ...]) -> None:
    assert needed(net_of(NET), blobs) == layers


def test_an_in_place_layer_makes_its_blob_anew() -> None:
    net = net_of(NET)
    assert last_makers(net)["t"] == 3
    assert feeders(net)[6] == (4, 3)
