"""A model in an .onnx file as one checkable layer, and the same file run as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from gradcheck import Array, Program, Traced, onnxruntime_run
from layer_programs import emitted, layer_model

from kdnet.errors import KdnetError
from kdnet.graph import Emitter
from kdnet.layers import Layer, Trace, Weight, layer_class

GOLDEN = Path(__file__).parent / "golden" / "onnx"


@dataclass(frozen=True)
class Loaded:
    """The layer, its declared weights, and their values by the names that ``emitted`` uses."""

    layer: Layer
    weights: list[Weight]
    arrays: dict[str, Array]
    tops: int

    def program(self) -> Program:
        """The layer on its arrays; gradients are by every weight that may be trained."""
        model, count = self.layer.model, self.tops
        trained = [f"weight{i}" for i, weight in enumerate(self.weights) if not weight.state]
        return Program(
            build=lambda g, given: emitted(g, model, given).outputs(),
            arrays=self.arrays,
            wrt=tuple(trained),
            gradient_of=tuple(f"top{i}" for i in range(count)),
        )

    def names(self) -> dict[str, str]:
        """The model's name of each ``weight0`` and so on."""
        return {f"weight{i}": weight.name for i, weight in enumerate(self.weights)}


def loaded(path: Path, *bottoms: Array, text: str = "", phase: str = "TRAIN", tops: int = 1):
    """The layer for a model, checked, with the model's own weights."""
    prototxt = f'type: "ONNX" onnx_param {{ model: "{path.as_posix()}" {text} }}'
    model = layer_model(prototxt, phase, len(bottoms), tops)
    layer = layer_class(model)(model, Trace())
    g = Emitter()
    tensors = [g.input(f"bottom{i}", array.shape) for i, array in enumerate(bottoms)]
    layer.check(*tensors)
    weights = layer.weights(*tensors)
    arrays = {f"bottom{i}": np.asarray(array, np.float32) for i, array in enumerate(bottoms)}
    arrays |= {f"weight{i}": weight.stored.read() for i, weight in enumerate(weights)}
    return Loaded(layer, weights, arrays, tops)


def run(found: Loaded, more: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Every top, next state and gradient, from ONNX Runtime in float32."""
    program = found.program()
    traced = Traced(program, np.float32)
    given = {**found.arrays, **(more or {})}
    gradients = (
        traced.with_gradients(program.wrt) if any("seed/" in name for name in given) else {}
    )
    outputs = {**traced.outputs, **{f"d/{name}": t for name, t in gradients.items()}}
    return onnxruntime_run(traced.model(outputs), given)


def tops(path: Path, *bottoms: Array, **more) -> list[Array]:
    """The layer's tops."""
    found = loaded(path, *bottoms, **more)
    outputs = run(found)
    return [outputs[f"top{i}"] for i in range(found.tops)]


def plain(path: Path, *inputs: Array) -> list[Array]:
    """The file's own outputs, as floats."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    kinds |= {"tensor(double)": np.float64, "tensor(int64)": np.int64}
    feeds = {
        wanted.name: np.asarray(array, kinds[wanted.type])
        for wanted, array in zip(session.get_inputs(), inputs, strict=True)
    }
    return [np.asarray(y, np.float32) for y in session.run(None, feeds)]


def written(folder: Path, text: str) -> Path:
    """A model in ONNX's text form as a file; arrays without values get random ones."""
    model = onnx.parser.parse_model(text)
    made = {name for node in model.graph.node for name in node.output}
    rng = np.random.default_rng(len(text))
    for value in model.graph.value_info:
        if value.name not in made:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            array = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def opset(version: int, body: str) -> str:
    """A model in text form."""
    ir = 10 if version >= 18 else 8
    domains = f'"" : {version}, "local" : 1, "com.microsoft" : 1'
    return f"<ir_version: {ir}, opset_import: [{domains}]> model {body}"


def fault(path: Path, *bottoms: Array, text: str = "", count: int = 1) -> tuple[str, str]:
    """The code and the text of the one fault of a model with ``count`` tops."""
    with pytest.raises(KdnetError) as caught:
        tops(path, *(bottoms or (np.ones((2, 6)),)), text=text, tops=count)
    [found] = caught.value.diagnostics
    assert found.span is not None
    assert found.message.startswith('layer "layer" (ONNX): ')
    return found.code, found.message.partition(": ")[2]
