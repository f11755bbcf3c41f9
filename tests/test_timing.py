"""``kdnet time``: what it prints, what it blames for the time, and that nothing is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_nets import Ended, edit, ok, run

from kdnet.compile import compile_evaluation, trace_forward
from kdnet.graph import Emitter
from kdnet.net import NetState, resolve_net
from kdnet.runtime.timing_layers import Owner, Owners, Part, shares_of
from kdnet.runtime.timing_profile import mean_nodes, runs_of
from kdnet.runtime.timing_report import LayerTime, Timing, as_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net

DEPLOY = """
name: "Deploy"
input: "data" input_shape { dim: 2 dim: 16 dim: 9 dim: 9 }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }
}
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }
}
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "conv2" top: "sum" }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
layer {
  name: "pool" type: "Pooling" bottom: "sum" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 }
}
layer { name: "prob" type: "Softmax" bottom: "pool" top: "prob" }
"""
NUMBER = re.compile(r"(?<![\w/.])-?\d+(\.\d+)?(e[-+]?\d+)?(?![\w/])")


def masked(text: str) -> str:
    """The text with every number but those in names as N, and runs of blanks as one."""
    return re.sub(r" +", " ", NUMBER.sub("N", text))


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "deploy.prototxt"
    path.write_text(DEPLOY)
    return path


def timed(*arguments: object) -> Ended:
    return ok("time", *arguments, "--device", "cpu", "--iterations", 2)


def found(*arguments: object) -> dict[str, object]:
    return json.loads(timed(*arguments, "--json", "-").out)


LINES = """\
Device: cpu (asked for)
Performing Forward
Initial loss: N
Performing Backward
*** Benchmark begins ***
Testing for N iterations.
Iteration: N forward-backward time: N ms.
Iteration: N forward-backward time: N ms.
Average time per layer:
 digits\tforward: N ms.
 digits\tbackward: N ms.
student/ip1\tforward: N ms.
student/ip1\tbackward: N ms.
student/relu1\tforward: N ms.
student/relu1\tbackward: N ms.
student/drop1\tforward: N ms.
student/drop1\tbackward: N ms.
student/ip2\tforward: N ms.
student/ip2\tbackward: N ms.
 loss\tforward: N ms.
 loss\tbackward: N ms.
Average Forward pass: N ms.
Average Backward pass: N ms.
Average outside of layers, update: N ms.
Average outside of layers, memory copies: N ms.
Average outside of layers, ops of no layer: N ms.
Average outside of layers, between ops: N ms.
Average Forward-Backward: N ms.
Total Time: N ms.
*** Benchmark ends ***
"""


@pytest.mark.usefixtures("joined")
def test_the_log_is_as_caffe_s() -> None:
    log = "".join(f"{line}\n" for line in timed("student.prototxt").log)
    assert masked(log) == LINES.replace("layer:\n", "layer: \n")


@pytest.mark.usefixtures("joined")
def test_the_lines_of_layers_are_in_caffe_s_columns() -> None:
    lines = timed("-model=student.prototxt").log
    assert any(re.fullmatch(r"    digits\tforward: [\d.e-]+ ms\.", line) for line in lines)
    assert any(re.fullmatch(r"      loss\tbackward: [\d.e-]+ ms\.", line) for line in lines)


@pytest.mark.usefixtures("joined")
def test_the_table_has_every_layer_by_cost_and_what_is_left() -> None:
    out = timed("student.prototxt").out
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:6] == ["layer", "type", "forward", "backward", "both", "ms"]
    names = [row[0] for row in rows[1:7]]
    assert sorted(names) == [
        "digits",
        "loss",
        "student/drop1",
        "student/ip1",
        "student/ip2",
        "student/relu1",
    ]
    costs = [float(row[4]) for row in rows[1:7]]
    assert costs == sorted(costs, reverse=True)
    shares = [float(share) for share in re.findall(r"([\d.]+) %", out)]
    assert shares[-1] == 100
    assert sum(shares[:-1]) == pytest.approx(100, abs=0.6)
    assert re.search(r"^\(between ops\) +[\d.]+ +[\d.]+ %$", out, re.MULTILINE)
    assert re.search(r"^training step of [\d.]+ ms on cpu, the mean of 2; forward", out, re.M)


@pytest.mark.usefixtures("joined")
def test_the_parts_are_the_whole() -> None:
    whole = found("student.prototxt")
    parts = [whole[name] for name in ("forward", "backward", "update", "copies", "other")]
    assert sum(parts) + whole["between"] == pytest.approx(whole["iteration"])
    assert min(parts) >= 0
    assert whole["between"] > 0
    assert whole["total"] == pytest.approx(2 * whole["iteration"])
    assert whole["update"] > 0
    assert whole["trains"] is True


def test_fused_layers_are_counted_where_they_are_computed(deploy: Path) -> None:
    layers = {layer["name"]: layer for layer in found(deploy, "--phase", "TEST")["layers"]}
    homes = {name: layer["computed_in"] for name, layer in layers.items()}
    assert homes == {
        "input": [],
        "conv1": [],
        "bn1": ["conv1"],
        "scale1": ["conv1"],
        "relu1": ["conv1"],
        "conv2": [],
        "sum": ["conv2"],
        "relu2": ["conv2"],
        "pool": [],
        "prob": [],
    }
    assert all((layers[name]["forward"] == 0) == bool(home) for name, home in homes.items())
    ended = timed(deploy, "--phase", "TEST")
    assert "relu1" in ended.out
    assert "computed in conv1" in ended.out


def test_a_net_without_a_loss_is_timed_forward_only_on_made_up_data(deploy: Path) -> None:
    ended = timed(deploy)
    assert '"data" has no data: it gets random numbers' in ended.log
    assert "Performing Backward" not in ended.log
    assert "forward pass of" in ended.out
    whole = found(deploy)
    assert whole["trains"] is False
    assert whole["backward"] == whole["update"] == 0
    assert all(layer["forward"] > 0 for layer in whole["layers"])


def test_labels_that_are_made_up_are_labels(deploy: Path) -> None:
    deploy.write_text(
        'name: "L" input: "data" input_dim: 6 input_dim: 4 input_dim: 1 input_dim: 1\n'
        'input: "label" input_dim: 6 input_dim: 1 input_dim: 1 input_dim: 1\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"\n'
        "  inner_product_param { num_output: 3 } }\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
    )
    whole = found(deploy)
    assert whole["trains"] is True
    assert whole["backward"] > 0


def test_data_that_are_not_there_are_made_up_where_that_is_asked_for(joined: Path) -> None:
    edit(joined / "student.prototxt", "digits_lmdb", "no_such_lmdb")
    assert "[missing-data-source]" in run("time", "student.prototxt").err
    given = ("student.prototxt", "--synthetic-data", "--input-shape", "data=1x4x4")
    assert found(*given)["backward"] > 0


@pytest.mark.usefixtures("joined")
def test_a_frozen_teacher_has_a_forward_pass_only() -> None:
    layers = {layer["name"]: layer for layer in found("joined.prototxt")["layers"]}
    assert layers["teacher/ip"]["backward"] == 0
    assert layers["teacher/ip"]["forward"] > 0
    assert layers["student/ip1"]["backward"] > 0
    assert layers["ts_loss"]["backward"] > 0


@pytest.mark.usefixtures("joined")
def test_the_phase_decides_which_layers_there_are() -> None:
    names = [layer["name"] for layer in found("student.prototxt", "-phase=TEST")["layers"]]
    assert "accuracy" in names
    assert "accuracy" not in [x["name"] for x in found("student.prototxt")["layers"]]


def test_json_goes_to_a_file_beside_the_table(deploy: Path) -> None:
    ended = timed(deploy, "--json", "times.json")
    assert "forward pass of" in ended.out
    assert json.loads(Path("times.json").read_text())["net"] == "Deploy"


def test_what_is_no_net_is_refused(joined: Path) -> None:
    assert "[not-a-net]" in run("time", "student_solver.prototxt").err
    assert "[usage]" in run("time").err
    both = run("time", "student.prototxt", "--model", "joined.prototxt")
    assert (both.code, "both name the net" in both.err) == (2, True)
    assert run("time", "student.prototxt", "--phase", "test").code == 2
    assert joined.exists()


# --- profiles


def event(name: str, start: int, duration: int, category: str = "Node") -> dict[str, object]:
    return {
        "cat": category,
        "name": f"{name}_kernel_time" if category == "Node" else name,
        "ts": start,
        "dur": duration,
        "args": {"op_name": name.rpartition("/")[2]},
    }


def test_nodes_belong_to_the_run_they_lie_in_and_loops_count_once() -> None:
    events = [
        event("session_initialization", 0, 90, "Session"),
        event("a/Relu", 110, 10),
        event("model_run", 100, 50, "Session"),
        event("b/Inner", 225, 5),
        event("b/Scan", 220, 20),
        event("a/Relu", 205, 15),
        event("model_run", 200, 60, "Session"),
        event("stray", 170, 5),
        {},
    ]
    runs = runs_of(events)
    assert [(run.start, run.duration) for run in runs] == [(100, 50), (200, 60)]
    assert runs[0].nodes == {("a/Relu", "Relu"): 10}
    assert runs[1].nodes == {("a/Relu", "Relu"): 15, ("b/Scan", "Scan"): 20}
    assert mean_nodes(runs) == {("a/Relu", "Relu"): 12.5, ("b/Scan", "Scan"): 10}


def owners(net: str, path: Path, graph: onnx.GraphProto | None) -> Owners:
    path.write_text(net)
    located = read_net(str(path))
    model = resolve_net(located.message, located.source, NetState(pb.TEST))
    program = compile_evaluation(model).program
    return Owners(trace_forward(model, Emitter()), program.model, graph)


def test_what_the_runtime_adds_belongs_to_the_layer_that_it_is_done_for(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReorderInput", ["data"], ["r0"], name="ReorderInput"),
        helper.make_node("Conv", ["r0"], ["r1"], name="relu1/Relu_nchwc"),
        helper.make_node("ReorderOutput", ["r1"], ["relu1/Relu"], name="ReorderOutput_token_1"),
        helper.make_node("Fresh", ["elsewhere"], ["nowhere"], name="Fresh"),
    ]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, [2, 16, 9, 9])
    graph = helper.make_graph(nodes, "g", [data], [])
    found = owners(DEPLOY, tmp_path / "net.prototxt", graph)
    conv1 = Owner(1, Part.FORWARD)
    assert found.owner("ReorderInput", "ReorderInput") == conv1
    assert found.owner("relu1/Relu_nchwc", "Conv") == conv1
    assert found.owner("ReorderOutput_token_1", "ReorderOutput") == conv1
    assert found.owner("Fresh", "Fresh") == Owner(None, Part.OTHER)
    assert found.owner("anything", "MemcpyToHost") == Owner(None, Part.COPY)


def test_without_the_optimized_graph_names_are_enough_for_most(tmp_path: Path) -> None:
    found = owners(DEPLOY, tmp_path / "net.prototxt", None)
    assert found.owner("fused conv2/Conv", "FusedConv") == Owner(5, Part.FORWARD)
    assert found.owner("ReorderInput", "ReorderInput") == Owner(None, Part.OTHER)
    times = {
        ("fused conv2/Conv", "FusedConv"): 5.0,
        ("ReorderInput", "ReorderInput"): 2.0,
        ("Memcpy", "MemcpyFromHost"): 1.0,
    }
    shares = shares_of(found, times)
    assert shares.forward == {5: 5.0}
    assert (shares.other, shares.copies, shares.update) == (2.0, 1.0, 0.0)


def test_a_layer_called_grad_is_no_gradient(tmp_path: Path) -> None:
    net = DEPLOY.replace('"relu1"', '"grad"')
    assert owners(net, tmp_path / "net.prototxt", None).owner("grad/Relu", "Relu") == Owner(
        4, Part.FORWARD
    )


def test_the_table_is_exact() -> None:
    layers = (
        LayerTime("conv1", "Convolution", 2.0, 4.0, 3_000_000),
        LayerTime("relu1", "ReLU", 0.0, 1.0, 1000, ("conv1",)),
    )
    timing = Timing("Net", "TRAIN", "cpu", 2, 2, 20.0, layers, 1.0, 0.5, 0.0, 1.5, trains=True)
    assert as_text(timing) == (
        "layer            type         forward  backward  both ms    share  forward GFLOP/s\n"
        "conv1            Convolution    2.000     4.000    6.000   60.0 %             1.50\n"
        "relu1            ReLU           0.000     1.000    1.000   10.0 %                -"
        "  computed in conv1\n"
        "(update)                                           1.000   10.0 %\n"
        "(memory copies)                                    0.500    5.0 %\n"
        "(between ops)                                      1.500   15.0 %\n"
        "sum                             2.000     5.000   10.000  100.0 %\n"
        "\n"
        "training step of 10.000 ms on cpu, the mean of 2; forward: 0.003 GFLOP\n"
    )
    assert np.isclose(timing.parts, timing.iteration)
