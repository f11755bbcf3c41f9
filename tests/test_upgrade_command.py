"""kdnet upgrade: old files become files of today, and lose nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_nets import ok, run

from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net, read_solver, read_text, write_text
from kdnet.weights import read_weights
from kdnet.weights.upgrading import upgrade_net_file

GOLDEN = Path(__file__).parent / "golden"

OLDEST = """
name: "Old"
input: "image"
input_dim: [2, 3, 8, 8]
layers {
  layer { name: "pad1" type: "padding" pad: 2 }
  bottom: "image" top: "pad1"
}
layers {
  layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 5 blobs_lr: [1, 2] }
  bottom: "pad1" top: "conv1"
}
layers {
  layer { name: "ip" type: "innerproduct" num_output: 2 weight_filler { type: "xavier" } }
  bottom: "conv1" top: "ip"
}
"""
TOLD = """\
upgraded layers { layer { } } (V0): 3 layers
upgraded padding, now the pad of what reads it: 1 layer
upgraded input fields, now a layer of type Input: 1 input
new.prototxt: net, text
"""
SECOND = """
layers {
  name: "data" type: DATA top: "data"
  data_param { source: "s" batch_size: 2 mean_file: "m.binaryproto" crop_size: 4 }
}
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip"
  blobs_lr: 1 inner_product_param { num_output: 2 } }
"""
TODAY = """# by hand
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y"
  param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } }
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parsed(text: str) -> pb.NetParameter:
    return read_text(text, "net.prototxt", pb.NetParameter).message


def test_a_net_of_the_first_format() -> None:
    Path("old.prototxt").write_text(OLDEST)
    assert ok("upgrade", "net", "old.prototxt", "new.prototxt").out == TOLD
    new = Path("new.prototxt").read_text()
    assert new == write_text(read_net("old.prototxt").message)
    assert [layer.type for layer in parsed(new).layer] == ["Input", "Convolution", "InnerProduct"]
    assert list(parsed(new).layer[1].convolution_param.pad) == [2]


def test_a_net_of_the_second_format() -> None:
    Path("old.prototxt").write_text(SECOND)
    told = ok("upgrade", "net", "old.prototxt", "new.prototxt").out.splitlines()
    assert told[:2] == [
        "upgraded layers { } (V1): 2 layers",
        "upgraded fields of data layers, now in transform_param: 2 fields",
    ]
    data = parsed(Path("new.prototxt").read_text()).layer[0]
    assert data.transform_param == pb.TransformationParameter(
        mean_file="m.binaryproto", crop_size=4
    )


def test_params_of_batch_norm() -> None:
    text = TODAY.replace("lr_mult: 0", "lr_mult: 1")
    Path("old.prototxt").write_text(text)
    told = ok("upgrade", "net", "old.prototxt", "new.prototxt").out.splitlines()[0]
    assert told == "upgraded params of BatchNorm, now with lr_mult 0 and decay_mult 0: 1 layer"
    (layer,) = parsed(Path("new.prototxt").read_text()).layer
    assert [(spec.lr_mult, spec.decay_mult) for spec in layer.param] == [(0, 0)] * 3


def test_inputs_without_a_shape_are_left_out_of_a_weight_file() -> None:
    net = pb.NetParameter(input=["data"], layer=[{"name": "a", "type": "ReLU"}])
    Path("old.caffemodel").write_bytes(net.SerializeToString())
    told = ok("upgrade", "net", "old.caffemodel", "new.caffemodel").out.splitlines()[0]
    assert told == "upgraded input fields, without a shape, left out: 1 input"
    new = pb.NetParameter.FromString(Path("new.caffemodel").read_bytes())
    assert new == pb.NetParameter(layer=[{"name": "a", "type": "ReLU"}])


def test_a_text_of_today_keeps_its_comments_and_a_second_upgrade_changes_nothing() -> None:
    text = TODAY.replace("lr_mult: 0", "lr_mult: 0 decay_mult: 0")
    Path("net.prototxt").write_text(text)
    told = ok("upgrade", "net", "net.prototxt", "net.prototxt").out
    assert told.splitlines()[0] == "nothing to upgrade: net.prototxt is in today's format"
    assert Path("net.prototxt").read_text() == text
    Path("old.prototxt").write_text(OLDEST)
    ok("upgrade", "net", "old.prototxt", "old.prototxt")
    once = Path("old.prototxt").read_bytes()
    assert "nothing to upgrade" in ok("upgrade", "net", "old.prototxt", "old.prototxt").out
    assert Path("old.prototxt").read_bytes() == once


# Weights ---------------------------------------------------------------------------------------


def blobs() -> list[pb.BlobProto]:
    """Numbers as old Caffe, today's Caffe and a fork store them."""
    values = np.arange(24, dtype=np.float32)
    today = pb.BlobProto(data=values[:3], diff=[7, 8, 9], shape={"dim": [3]})
    double = pb.BlobProto(double_data=values[:2], shape={"dim": [2]})
    half = b"\x50\x02\x62\x04" + np.array([1.5, -2], "<f2").tobytes()
    raw = pb.BlobProto.FromString(half + pb.BlobProto(shape={"dim": [2]}).SerializeToString())
    return [pb.BlobProto(num=2, channels=3, height=2, width=2, data=values), today, double, raw]


def old_net(generation: str) -> pb.NetParameter:
    net = pb.NetParameter(name="Old")
    for name, kept in (("a", blobs()[:2]), ("none", []), ("b", blobs()[2:])):
        if generation == "V0":
            net.layers.add().layer.MergeFrom(
                pb.V0LayerParameter(name=name, type="innerproduct", blobs=kept, num_output=2)
            )
        else:
            kind = pb.V1LayerParameter.INNER_PRODUCT
            net.layers.add(name=name, type=kind, blobs=kept, blobs_lr=[1, 2])
    return net


@pytest.mark.parametrize("generation", ["V0", "V1"])
def test_weights_are_kept_to_the_byte(generation: str) -> None:
    Path("old.caffemodel").write_bytes(old_net(generation).SerializeToString())
    ended = ok("upgrade", "net", "old.caffemodel", "new.caffemodel")
    assert f"({generation}): 3 layers" in ended.out
    assert ended.out.endswith("new.caffemodel: net, binary\n")
    new = pb.NetParameter.FromString(Path("new.caffemodel").read_bytes())
    assert [layer.name for layer in new.layer] == ["a", "none", "b"]
    assert {layer.type for layer in new.layer} == {"InnerProduct"}
    kept = [blob.SerializeToString() for layer in new.layer for blob in layer.blobs]
    assert kept == [blob.SerializeToString() for blob in blobs()]
    if generation == "V1":
        assert [spec.lr_mult for spec in new.layer[0].param] == [1, 2]
    for before, after in zip(
        read_weights("old.caffemodel").layers, read_weights("new.caffemodel").layers, strict=True
    ):
        for left, right in zip(before.blobs, after.blobs, strict=True):
            np.testing.assert_array_equal(left, right)


def test_padding_layers_leave_a_weight_file_too() -> None:
    net = parsed(OLDEST)
    net.layers[1].layer.blobs.add(data=[1, 2], num=1, channels=1, height=1, width=2)
    Path("old.caffemodel").write_bytes(net.SerializeToString())
    ok("upgrade", "net", "old.caffemodel", "old.caffemodel")
    new = pb.NetParameter.FromString(Path("old.caffemodel").read_bytes())
    assert [len(layer.blobs) for layer in new.layer] == [0, 1, 0]
    assert list(new.layer[1].blobs[0].data) == [1, 2]


@pytest.mark.parametrize("name", ["v0", "v1"])
def test_a_text_becomes_binary_and_a_binary_text(name: str) -> None:
    old = GOLDEN / f"schema_{name}.prototxt"
    ok("upgrade", "net", old, "net.bin", "--to", "binary")
    assert pb.NetParameter.FromString(Path("net.bin").read_bytes()) == read_net(old).message
    ended = ok("upgrade", "net", "net.bin", "net.prototxt", "--to", "text")
    assert ended.out.endswith("net.prototxt: net, text\n")
    assert read_net("net.prototxt").message == read_net(old).message


def test_a_text_gets_no_weights_and_that_is_said() -> None:
    Path("old.caffemodel").write_bytes(old_net("V1").SerializeToString())
    ended = ok("upgrade", "net", "old.caffemodel", "net.prototxt", "--to", "text")
    assert "left out the weights of 2 layers, which a text does not hold\n" in ended.out
    assert [len(layer.blobs) for layer in read_net("net.prototxt").message.layer] == [0, 0, 0]


def test_a_binary_file_of_today_is_copied() -> None:
    upgrade_net_file(GOLDEN / "schema_v2.caffemodel", "copy.caffemodel")
    assert Path("copy.caffemodel").read_bytes() == (GOLDEN / "schema_v2.caffemodel").read_bytes()


# Solvers ---------------------------------------------------------------------------------------


def test_a_solver() -> None:
    Path("snapshots").mkdir()
    Path("old_solver.prototxt").write_text(
        'solver_type: ADAM snapshot_prefix: "snapshots" test_net_param { input: "x" '
        'input_dim: [1, 1, 1, 1] layers { name: "r" type: RELU bottom: "x" top: "y" } }'
    )
    ended = ok("upgrade", "solver", "old_solver.prototxt", "new.prototxt")
    assert ended.out == (
        'upgraded solver_type, a number: type: "Adam"\n'
        'upgraded snapshot_prefix "snapshots", a folder: "snapshots/old_solver"\n'
        "upgraded test_net_param 0: layers { } (V1): 1 layer\n"
        "upgraded test_net_param 0: input fields, now a layer of type Input: 1 input\n"
        "new.prototxt: solver, text\n"
    )
    assert read_solver("new.prototxt").message == read_solver("old_solver.prototxt").message


def test_nets_of_a_solver_are_told_apart() -> None:
    layers = 'layers { name: "r" type: RELU bottom: "x" top: "y" }'
    Path("s.prototxt").write_text(
        f"net_param {{ {layers} }} train_net_param {{ {layers} {layers} }}"
    )
    told = ok("upgrade", "solver", "s.prototxt", "t.prototxt").out.splitlines()
    assert told[0] == "upgraded net_param: layers { } (V1): 1 layer"
    assert told[1] == "upgraded train_net_param: layers { } (V1): 2 layers"


def test_a_solver_in_both_forms() -> None:
    Path("old.prototxt").write_text("solver_type: NESTEROV base_lr: 0.5 momentum: 0.9")
    ok("upgrade", "solver", "old.prototxt", "new.bin", "--to", "binary")
    wanted = pb.SolverParameter(type="Nesterov", base_lr=0.5, momentum=0.9)
    assert pb.SolverParameter.FromString(Path("new.bin").read_bytes()) == wanted
    ended = ok("upgrade", "solver", "new.bin", "new.prototxt", "--to", "text")
    assert "nothing to upgrade" in ended.out
    assert read_solver("new.prototxt").message == wanted
    ok("upgrade", "solver", "new.bin", "again.bin")
    assert Path("again.bin").read_bytes() == Path("new.bin").read_bytes()


def test_a_solver_of_today_is_copied() -> None:
    Path("s.prototxt").write_text("base_lr: 0.5 # half\n")
    assert "nothing to upgrade" in ok("upgrade", "solver", "s.prototxt", "t.prototxt").out
    assert Path("t.prototxt").read_text() == "base_lr: 0.5 # half\n"


# A layer that holds two of the first format, whose parts protobuf would join.
TWICE = pb.NetParameter(
    layers=[{"layer": {"name": "a", "type": "relu", "blobs": [{"num": 9}]}}]
).SerializeToString()
TWICE = b"\x12" + bytes([2 * len(TWICE[2:])]) + 2 * TWICE[2:]


# Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content", "code"),
    [
        ("net", None, "file-not-found"),
        ("solver", None, "file-not-found"),
        ("net", b"layers { bottem: 1 }", "unknown-field"),
        ("net", b'layer { } layers { name: "a" }', "mixed-layer-formats"),
        ("net", b"\x89HDF\r\n\x1a\n" + bytes(99), "foreign-weights"),
        ("net", old_net("V1").SerializeToString()[:-3], "truncated-weights"),
        ("net", b"\xa2\x06\x05\x0a\x01a\x50\x02\x12\x00\x12\x01", "truncated-weights"),
        ("net", b"\xa2\x06\x05\x0a\x01a\x3a\x05\x0a\x00", "corrupt-weights"),
        ("net", TWICE, "corrupt-weights"),
        ("net", b"\x12\x05\x22\x03\xc2a\xc2", "corrupt-weights"),
        ("solver", b"\x0a\x01\x00\x12\x7f", "corrupt-weights"),
        ("solver", b'solver_type: SGD type: "Adam"', "solver-type-twice"),
    ],
)
def test_faults_leave_no_file(kind: str, content: bytes | None, code: str) -> None:
    if content is not None:
        Path("old").write_bytes(content)
    ended = run("upgrade", kind, "old", "new")
    assert ended.code == 1
    assert f"[{code}]" in ended.err
    assert not Path("new").exists()


def test_a_place_that_cannot_be_written() -> None:
    Path("old").write_text(OLDEST)
    ended = run("upgrade", "net", "old", "no/such/place")
    assert (ended.code, "[cannot-write]" in ended.err) == (1, True)
