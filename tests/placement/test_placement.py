"""The placement tool: what it reports, and under the stub libraries what it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nets_on_cuda
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from placement import Placement, complaints, positions, table

GPU_PYTHON = nets_on_cuda.REPOSITORY / ".venv-gpu" / "bin" / "python"


def _node(op, inputs, output, line, **attrs):
    node = helper.make_node(op, inputs, [output], name=f"net/{output}/{op}", **attrs)
    entry = node.metadata_props.add()
    entry.key, entry.value = "kdnet.source", f"nets/small.prototxt:{line}:3"
    return node


def _write(path: Path, *extra: onnx.NodeProto) -> Path:
    """A small net with the ops of a training step; ``extra`` nodes read its output ``y``."""
    nodes = [
        _node("Conv", ["x", "w"], "conv", 1, pads=[1, 1, 1, 1]),
        _node("MaxPool", ["conv"], "pool", 2, kernel_shape=[2, 2], strides=[2, 2]),
        _node("Relu", ["pool"], "relu", 3),
        _node("Reshape", ["relu", "shape"], "flat", 4),
        _node("Gemm", ["flat", "v"], "y", 5, transB=1),
        *extra,
    ]
    inputs = {"x": (4, 3, 8, 8), "w": (8, 3, 3, 3), "v": (10, 128)}
    graph = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, (4, 10))],
        [numpy_helper.from_array(np.array([4, 128]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


# Celu is in the standard, but not among the CUDA provider's kernels.
def _stray():
    return _node("Celu", ["y"], "odd", 6), _node("Mul", ["odd", "odd"], "out", 7)


def test_a_table_has_one_line_a_net_and_marks_the_failed():
    rows = [
        Placement("mnist/small", 12, (), 0),
        Placement("mnist/odd", 11, (("Celu", "net/odd/Celu"),), 2),
    ]
    assert table(rows) == (
        "net          nodes  on CUDA  on CPU  Memcpy\n"
        "mnist/small     12       12       0       0\n"
        "mnist/odd       12       11       1       2  FAILED"
    )


def test_a_stray_node_is_reported_at_its_prototxt_position(tmp_path):
    at = positions(_write(tmp_path / "odd.onnx", *_stray()))
    row = Placement("mnist/odd", 6, (("Celu", "net/odd/Celu"), ("Foo", "made/by/ort")), 2)
    assert complaints(row, at) == [
        'nets/small.prototxt:6:3: error: Celu node "net/odd/Celu" is not on CUDA',
        'mnist/odd: error: Foo node "made/by/ort" is not on CUDA',
    ]


@pytest.mark.parametrize(
    "row",
    [
        Placement("n", 1, (("Celu", "c"),), 0),
        Placement("n", 1, (), 1),
        Placement("n", 1, (), 0, "refused"),
    ],
)
def test_anything_off_the_device_is_a_failure(row):
    assert not row.clean


def test_every_net_is_placed_with_its_solver():
    nets = nets_on_cuda.all_nets()
    assert len(nets) >= 10
    assert [net for net in nets if not nets_on_cuda.solver_of(net).exists()] == []


@pytest.mark.skipif(not GPU_PYTHON.exists(), reason="no .venv-gpu here: make test-cuda makes it")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the stub libraries")
def test_the_stub_libraries_find_the_one_node_that_is_not_on_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(nets_on_cuda, "STUBS", tmp_path / "stubs")
    nets_on_cuda.build_stubs(str(GPU_PYTHON))
    good = _write(tmp_path / "made" / "good.onnx")
    odd = _write(tmp_path / "made" / "odd.onnx", *_stray())
    ran = subprocess.run(
        [GPU_PYTHON, "tests/placement/placement.py", good, odd],
        cwd=nets_on_cuda.REPOSITORY,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "stubs")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == (
        "net        nodes  on CUDA  on CPU  Memcpy\n"
        "made/good      5        5       0       0\n"
        "made/odd       7        6       1       2  FAILED\n"
        "1 of 2 are on CUDA whole\n"
    )
    assert ran.stderr == (
        'nets/small.prototxt:6:3: error: Celu node "net/odd/Celu" is not on CUDA\n'
    )
    assert ran.returncode == 1
