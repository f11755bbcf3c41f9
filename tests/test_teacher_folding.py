"""What a frozen teacher's normalisation costs at run time: nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from layer_programs import emitted, layer_model

from kdnet.graph import Emitter, Tensor, to_model

CHAIN = (
    'type: "BatchNorm"',
    'type: "Scale" scale_param { bias_term: true }',
    'type: "ReLU"',
)
SHAPES = {
    "BatchNorm": [(8,), (8,), (1,)],
    "Scale": [(8,), (8,)],
    "ReLU": [],
}


def _frozen_block(g: Emitter, x: Tensor) -> tuple[Tensor, dict[Tensor, np.ndarray]]:
    """Convolution, BatchNorm, Scale and ReLU with positive random weights."""
    rng = np.random.default_rng(0)
    weights: dict[Tensor, np.ndarray] = {}

    def weight(name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = g.input(name, shape)
        weights[tensor] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return tensor

    y = g.op("Conv", x, weight("conv", (8, 4, 3, 3)))
    for text in CHAIN:
        model = layer_model(text, "TEST", 1, 1)
        blobs = [weight(f"{model.type}{i}", s) for i, s in enumerate(SHAPES[model.type])]
        given = {"bottom0": y} | {f"weight{i}": blob for i, blob in enumerate(blobs)}
        y = emitted(g, model, given).tops[0]
    return y, weights


@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_a_frozen_block_becomes_one_convolution(external: bool, tmp_path: Path) -> None:
    g = Emitter()
    x = g.input("x", (2, 4, 8, 8))
    y, weights = _frozen_block(g, x)
    known = {tensor: None if external else array for tensor, array in weights.items()}
    model = to_model(g.ops, [x], {"y": y}, name="teacher", initializers=known)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    if external:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers([tensor.name for tensor in weights], values)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert [kind for kind in left if not kind.startswith("Reorder")] == ["Conv"]
