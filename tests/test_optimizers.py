"""Which graph optimizers of ONNX Runtime a session does without."""

from __future__ import annotations

import re
import subprocess
import sys

import onnx
import pytest

from kdnet.runtime import optimizers
from kdnet.runtime.optimizers import left_out, model_bytes, optimizes

VERBOSE = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 0
left_out = sys.argv[1].split(",") if sys.argv[1] else []
ort.InferenceSession(sys.stdin.buffer.read(), options, ["CPUExecutionProvider"],
                     disabled_optimizers=left_out)
"""


def model(*kinds: str) -> onnx.ModelProto:
    """A chain of unary ops."""
    names = [f"x{index}" for index in range(len(kinds) + 1)]
    nodes = [
        onnx.helper.make_node(kind, [before], [after])
        for kind, before, after in zip(kinds, names, names[1:], strict=False)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (2, 3))
        for name in (names[0], names[-1])
    ]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )


def passes(net: onnx.ModelProto, without: list[str]) -> set[str]:
    """The passes that the runtime says it made over a graph."""
    command = [sys.executable, "-c", VERBOSE, ",".join(without)]
    done = subprocess.run(command, input=net.SerializeToString(), capture_output=True, check=True)
    return set(re.findall(r"GraphTransformer (\w+) modified", done.stderr.decode()))


def test_names_are_those_of_the_runtime() -> None:
    known = passes(model("Neg", "Abs"), [])
    named = {*optimizers._NEEDS, *optimizers._LITTLE, *optimizers._OF_CONSTANTS}
    assert named <= known


def test_a_pass_that_is_left_out_is_not_made() -> None:
    net = model("Neg", "Abs")
    without = left_out(net.graph.node, constants=False)
    made = passes(net, without)
    # The runtime makes this one once by itself, before those that may be left out.
    assert made & set(without) <= {"EnsureUniqueDQForNodeUnit"}
    assert {"CommonSubexpressionElimination", "ConvActivationFusion"} <= made


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Erf", "GeluFusionL2"),
        ("Sigmoid", "QuickGeluFusion"),
        ("Pow", "LayerNormFusionL1"),
        ("DequantizeLinear", "QDQPropagationTransformer"),
        ("Gather", "GatherToSliceFusion"),
    ],
)
def test_a_pass_stays_where_its_ops_are(kind: str, name: str) -> None:
    node = onnx.helper.make_node(kind, ["x"], ["y"])
    other = onnx.helper.make_node("Neg", ["x"], ["y"])
    assert name not in left_out([node], constants=False)
    assert name in left_out([other], constants=False)


def test_a_large_graph_keeps_what_works_on_its_constants() -> None:
    nodes = [onnx.helper.make_node("Neg", ["x"], ["y"])] * (optimizers.LARGE_NODES + 1)
    frozen, moving = (set(left_out(nodes, constants=flag)) for flag in (True, False))
    assert moving - frozen == {"ConstantFolding", "NchwcTransformer"}
    assert "CommonSubexpressionElimination" in frozen
    assert "CommonSubexpressionElimination" not in left_out(nodes[:9], constants=False)


def test_a_huge_graph_without_constants_is_left_as_it_is() -> None:
    nodes = [onnx.helper.make_node("Neg", ["x"], ["y"])] * (optimizers.HUGE_NODES + 1)
    assert optimizes(nodes, constants=True)
    assert not optimizes(nodes, constants=False)
    assert optimizes(nodes[1:], constants=False)


def test_the_wrong_fusion_is_never_made() -> None:
    assert "Pad_Fusion" in left_out([], constants=True)


def test_nodes_that_wait_for_nothing_come_first_in_a_large_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = model("Neg", "Abs")
    net.graph.node.append(onnx.helper.make_node("Sqrt", ["x0"], ["late"]))
    assert model_bytes(net) == net.SerializeToString()
    monkeypatch.setattr(optimizers, "LARGE_NODES", 2)
    ordered = onnx.ModelProto.FromString(model_bytes(net))
    assert [node.op_type for node in ordered.graph.node] == ["Neg", "Sqrt", "Abs"]
    assert [node.op_type for node in net.graph.node] == ["Neg", "Abs", "Sqrt"]
    assert ordered.graph.input == net.graph.input
