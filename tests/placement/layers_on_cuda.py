"""Checks without a GPU that every layer would run on one, whole: ``make test-cuda``.

    PYTHONPATH=tests python tests/placement/layers_on_cuda.py GPU_PYTHON [TYPE ...]

Writes the forward pass and the gradients of every row of the tables of layers as a graph, then
asks onnxruntime-gpu where it would put the nodes, as ``nets_on_cuda.py`` does for nets.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from layer_programs import LayerCase, case_program, layer_cases
from nets_on_cuda import BUILD, build_stubs, place

from kdnet.autodiff import gradients, policy
from kdnet.graph import Emitter, outside, to_model


def graph_of(case: LayerCase) -> onnx.ModelProto:
    """A row's outputs, and the gradients of its float tops by what it is differentiated by."""
    program = case_program(case)
    g = Emitter(np.float32, policy.CUDA)
    # A layer that wants noise declares it itself.
    own = {name: array for name, array in program.arrays.items() if "/" not in name}
    given = {name: g.input(name, array.shape) for name, array in own.items()}
    outputs = program.build(g, given)
    tops = [(name, outputs[name]) for name in program.gradient_of if outputs[name].is_float]
    seeds = [(top, g.input(f"seed/{name}", top.shape)) for name, top in tops]
    found = gradients(g, seeds, [given[name] for name in program.wrt])
    results = outputs | {f"slope/{tensor.name}": slope for tensor, slope in found.items()}
    # An input or a tensor that is two outputs at once needs a node of its own.
    named = {name: g.op("Identity", tensor) for name, tensor in results.items()}
    return to_model(g.ops, outside(g.ops, named.values()), named, name=case.id)


def main(gpu_python: str, *types: str) -> int:
    """Write the graphs and place them; the exit status."""
    build_stubs(gpu_python)
    # A layer without tops, such as Silence, is no node.
    wanted = [case for case in layer_cases() if case.tops]
    wanted = [case for case in wanted if not types or case.id.split("/")[0] in types]
    files = []
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        for case in wanted:
            kind, _, rest = case.id.partition("/")
            file = Path(folder, kind, re.sub(r"[^\w.-]", "_", rest) + ".onnx")
            file.parent.mkdir(exist_ok=True)
            onnx.save(graph_of(case), file)
            files.append(file)
        return place(gpu_python, files, "--failed-only")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
