"""Which cache belongs to which teacher: a model that an ONNX layer embeds counts too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from small_nets import edit, ok

CACHED = ("--cache-teacher", "kept")


def model_file(kind: str) -> None:
    """``teacher.onnx``: one op and one product, of the same arrays whatever the op."""
    weight = numpy_helper.from_array(np.arange(48, dtype=np.float32).reshape(16, 3) / 48, "w")
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("Flatten", ["x"], ["f"]), make(kind, ["f"], ["a"])]
    nodes.append(make("MatMul", ["a", "w"], ["y"]))
    ends = [info("x", 1, ["n", 1, 4, 4])], [info("y", 1, ["n", 3])]
    graph = onnx.helper.make_graph(nodes, "g", *ends, [weight])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), "teacher.onnx")


def test_another_model_of_the_same_arrays_gets_its_own_folder(joined: Path) -> None:
    text = (joined / "joined.prototxt").read_text()
    begin = text.index("layer {", text.index("phase: TEST") + 100)
    layer = text[begin : text.index('layer {\n  name: "student/ip1"')]
    edit(
        joined / "joined.prototxt",
        layer,
        'layer { name: "teacher/ip" type: "ONNX" bottom: "data" top: "teacher/ip" '
        'onnx_param { model: "teacher.onnx" } }\n',
    )
    for kind in ("Relu", "Sigmoid"):
        model_file(kind)
        ok("train", "joined.prototxt", "--device", "cpu", "--max-iter", 2, *CACHED)
    assert len(list(Path("kept").glob("*/key.json"))) == 2
