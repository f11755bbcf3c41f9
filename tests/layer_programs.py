"""One layer alone as a checkable program: its graph, its inputs, and what it must compute."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from gradcheck import Program
from tables.cases import LayerCase, draw

from kdnet.graph import Emitter, Tensor
from kdnet.layers import Layer, Trace, Weight, layer_class
from kdnet.net import LayerModel
from kdnet.schema import SourceMap, read_text
from kdnet.schema import kdnet_pb2 as pb

Array = np.ndarray


def layer_cases() -> tuple[LayerCase, ...]:
    """The rows of every table of layers, one table a family."""
    tables = sorted((Path(__file__).parent / "tables").glob("layers_*.py"))
    modules = [importlib.import_module(f"tables.{path.stem}") for path in tables]
    rows = [row for module in modules for row in module.CASES]
    return tuple(row for row in rows if isinstance(row, LayerCase))


def layer_model(text: str, phase: str, bottoms: int, tops: int) -> LayerModel:
    """A layer named "layer" with numbered bottoms and tops, from the rest of its text."""
    names = [f'bottom: "bottom{i}"' for i in range(bottoms)] + [
        f'top: "top{i}"' for i in range(tops)
    ]
    located = read_text("\n".join(['name: "layer"', *names, text]), "layer", pb.LayerParameter)
    return model_of(located.message, located.source, phase)


def model_of(message: pb.LayerParameter, source: SourceMap, phase: str) -> LayerModel:
    """A message as the layer of a net in ``phase``."""
    return LayerModel(
        message.name,
        message.type,
        tuple(message.bottom),
        tuple(message.top),
        pb.Phase.Value(phase),
        message,
        source,
    )


@dataclass(frozen=True)
class Emitted:
    """A layer with its bottoms and weights on an emitter, and what it made of them."""

    layer: Layer
    weights: list[Weight]
    bottom_tensors: list[Tensor]
    weight_tensors: list[Tensor]
    tops: tuple[Tensor, ...]

    def outputs(self) -> dict[str, Tensor]:
        """The tops, and the next content of the blobs that the layer updates itself."""
        updates = self.layer.trace.updates
        found = {f"top{i}": top for i, top in enumerate(self.tops)}
        changed = [weight for weight in self.weight_tensors if weight in updates]
        return found | {f"next{i}": updates[weight] for i, weight in enumerate(changed)}


def emitted(g: Emitter, model: LayerModel, given: Mapping[str, Tensor]) -> Emitted:
    """Check and emit a layer on tensors named bottom0, ... and weight0, ..."""
    layer = layer_class(model)(model, Trace())
    bottoms = [given[name] for name in model.bottoms]
    layer.check(*bottoms)
    weights = layer.weights(*bottoms)
    tensors = [given[f"weight{index}"] for index in range(len(weights))]
    with g.scope(model.name):
        tops = layer.emit(g, *bottoms, *tensors)
    tops = tops if isinstance(tops, tuple) else (tops,)
    return Emitted(layer, weights, bottoms, tensors, tops)


def declared_weights(model: LayerModel, shapes: list[tuple[int, ...]]) -> list[Weight]:
    """The blobs that the layer owns with bottoms of these shapes."""
    g = Emitter(np.float64)
    bottoms = [g.input(f"bottom{i}", shape) for i, shape in enumerate(shapes)]
    layer = layer_class(model)(model, Trace())
    layer.check(*bottoms)
    return layer.weights(*bottoms)


def case_model(case: LayerCase) -> LayerModel:
    """The layer of a row."""
    return layer_model(case.prototxt, case.phase, len(case.bottoms), case.tops)


def case_program(case: LayerCase) -> Program:
    """The row's layer, with numbers from its domains."""
    model = case_model(case)
    weights = declared_weights(model, list(case.bottoms))
    seed = int.from_bytes(hashlib.blake2b(case.id.encode(), digest_size=4).digest(), "little")
    rng = np.random.default_rng(seed)
    arrays = {
        f"bottom{i}": draw(case.domain, i, rng, shape) for i, shape in enumerate(case.bottoms)
    }
    for i, weight in enumerate(weights):
        arrays[f"weight{i}"] = draw(case.weights, i, rng, weight.shape)
    if case.noise is not None:
        arrays["noise/layer"] = case.noise(rng, case.bottoms[0])
    trained = [f"weight{i}" for i, weight in enumerate(weights) if not weight.state]
    wrt = [*model.bottoms, *trained] if case.wrt is None else case.wrt
    return Program(
        build=lambda g, given: emitted(g, model, given).outputs(),
        arrays={name: np.asarray(array) for name, array in arrays.items()},
        wrt=tuple(wrt),
        seed=seed,
        gradient_of=tuple(f"top{i}" for i in range(case.tops)),
    )


def expected(case: LayerCase, program: Program) -> dict[str, Array]:
    """What the oracle says of the program's outputs, in the order in which they are emitted."""
    arrays = {name: array for name, array in program.arrays.items() if "/" not in name}
    more = {"noise": program.arrays["noise/layer"]} if case.noise is not None else {}
    values = case.oracle(*arrays.values(), **more)
    values = values if isinstance(values, tuple) else (values,)
    names = [f"top{i}" for i in range(case.tops)]
    names += [f"next{i}" for i in range(len(values) - case.tops)]
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def run_unoptimised(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The model's outputs from ONNX Runtime with no optimisation at all."""
    import onnxruntime as ort  # the runtime that the graph is meant for

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    feeds = {
        name: np.asarray(arrays[name], onnx.helper.tensor_dtype_to_np_dtype(kind), order="C")
        for name, kind in kinds.items()
    }
    labels = [value.name for value in model.graph.output]
    return dict(zip(labels, session.run(labels, feeds), strict=True))
