"""What the tables do not reach of Caffe's catalogue: files, fed numbers, and edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gradcheck import Traced, onnxruntime_run
from layer_programs import case_program, declared_weights, emitted, layer_cases, layer_model

from kdnet.autodiff import gradients
from kdnet.compile import compile_training
from kdnet.compile.program import LOSS
from kdnet.errors import DataError, LayerError
from kdnet.graph import Emitter, to_model
from kdnet.layers import Trace, layer_class
from kdnet.net import LayerModel, NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.runtime.feeding import check_labels
from kdnet.schema import SourceMap, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import fill

CASES = {case.id: case for case in layer_cases()}
INFOGAIN = 'type: "InfogainLoss" infogain_loss_param { source: "matrix.binaryproto" }'


def slope(model: LayerModel, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The gradient of the sum of the first top by bottom 0."""
    g = Emitter()
    given = {name: g.input(name, array.shape) for name, array in arrays.items()}
    top = emitted(g, model, given).tops[0]
    found = gradients(g, [(top, g.constant(np.ones(top.shape)))], [given["bottom0"]])
    outputs = {"slope": found[given["bottom0"]]}
    return onnxruntime_run(to_model(g.ops, list(given.values()), outputs, name="n"), arrays)[
        "slope"
    ]


def write_matrix(values: np.ndarray) -> None:
    blob = pb.BlobProto(data=values.reshape(-1).tolist())
    blob.shape.dim.extend(values.shape)
    Path("matrix.binaryproto").write_bytes(blob.SerializeToString())


def infogain_check() -> None:
    declared_weights(layer_model(INFOGAIN, "TRAIN", 2, 1), [(6, 3), (6,)])


def test_the_matrix_of_a_file_is_that_of_a_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES["InfogainLoss/full"]
    arrays = case_program(case).arrays
    write_matrix(arrays["bottom2"].reshape(1, 1, 3, 3))
    model = layer_model(f"{INFOGAIN} loss_param {{ normalization: FULL }}", "TRAIN", 2, 1)
    g = Emitter()
    given = {name: g.input(name, arrays[name].shape) for name in model.bottoms}
    top = emitted(g, model, given).tops[0]
    found = onnxruntime_run(to_model(g.ops, list(given.values()), {"top": top}, name="n"), arrays)
    np.testing.assert_allclose(found["top"], case.oracle(*arrays.values()), rtol=1e-5)


def test_a_matrix_of_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_matrix(np.ones((1, 1, 4, 4)))
    with pytest.raises(LayerError, match=r"\(1, 1, 4, 4\) for 3 classes; 3 rows of 3 wanted"):
        infogain_check()


def test_a_file_that_is_no_matrix_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("matrix.binaryproto").write_bytes(b"no blob at all")
    with pytest.raises(LayerError, match=r"is no matrix: .*\[bad-matrix\]"):
        infogain_check()
    Path("matrix.binaryproto").unlink()
    Path("matrix.binaryproto").mkdir()
    with pytest.raises(LayerError, match=r"is no matrix: .*\[bad-matrix\]"):
        infogain_check()


def test_a_number_outside_the_table_is_refused_when_it_is_fed() -> None:
    model = layer_model('type: "Embed" embed_param { num_output: 2 input_dim: 4 }', "TRAIN", 1, 1)
    layer = layer_class(model)(model, Trace())
    g = Emitter()
    layer.emit(g, g.input("bottom0", (3,)), g.input("w", (4, 2)), g.input("b", (2,)))
    (check,) = layer.trace.labels
    check_labels(check, np.array([0, 3, 1], np.float32), 0)
    with pytest.raises(DataError) as caught:
        check_labels(check, np.array([0, 4, 1], np.float32), 0)
    assert "index 4 of batch 0, item 1, is not one of the 4 rows 0 to 3" in str(caught.value)
    assert "input_dim must exceed the largest number" in str(caught.value)


def test_an_item_outside_the_batch_is_refused_when_it_is_fed() -> None:
    model = layer_model('type: "BatchReindex"', "TRAIN", 2, 1)
    layer = layer_class(model)(model, Trace())
    g = Emitter()
    layer.emit(g, g.input("bottom0", (3, 2)), g.input("bottom1", (4,)))
    (check,) = layer.trace.labels
    check_labels(check, np.array([0, 2, 1, 2], np.float32), 0)
    with pytest.raises(DataError) as caught:
        check_labels(check, np.array([0, -1, 1, 2], np.float32), 0)
    assert "item -1 of batch 0, item 1, is not one of the 3 items" in str(caught.value)


def test_a_parameter_is_trained_towards_its_target() -> None:
    text = """
    layer { name: "in" type: "Input" top: "target" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "table" type: "Parameter" top: "table"
      parameter_param { shape { dim: 2 dim: 3 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "table" bottom: "target" top: "loss" }
    """
    located = read_text(text, "net.prototxt", pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    solver = pb.SolverParameter(base_lr=1, lr_policy="fixed")
    training = compile_training(net, SolverModel(solver, SourceMap.empty()))
    values = {s.name: fill(s.filler, s.shape, seed=2, key=s.name) for s in training.weights}
    stepper = Stepper(training, Device("cpu"), values)
    target = np.arange(6, dtype=np.float32).reshape(2, 3)
    losses = [float(stepper.step(1.0, lambda _: {"target": target})[LOSS]) for _ in range(20)]
    assert losses[0] == pytest.approx(55 / 4)
    assert losses[-1] < 1e-6
    np.testing.assert_allclose(stepper.weights()["table/weight"], target, atol=1e-4)


def test_values_that_are_all_equal_have_a_finite_slope() -> None:
    model = layer_model('type: "MVN"', "TRAIN", 1, 1)
    assert not slope(model, {"bottom0": np.full((1, 2, 3, 3), 0.5, np.float32)}).any()


def test_a_pair_of_equal_items_is_pushed_nowhere() -> None:
    model = layer_model('type: "ContrastiveLoss"', "TRAIN", 3, 1)
    item = np.ones((2, 3), np.float32)
    arrays = {"bottom0": item, "bottom1": item, "bottom2": np.zeros(2, np.float32)}
    assert not slope(model, arrays).any()


def test_a_label_that_is_no_class_adds_nothing() -> None:
    for name in ("MultinomialLogisticLoss/default", "InfogainLoss/ignore_label"):
        case = CASES[name]
        program = case_program(case)
        labels = program.arrays["bottom1"].copy()
        labels[0] = 99
        traced = Traced(program, np.float32)
        model = traced.model(traced.outputs)
        found = onnxruntime_run(model, {**program.arrays, "bottom1": labels})["top0"]
        rest = (program.arrays["bottom0"][1:], labels[1:])
        inside = case.oracle(*rest, *[a for n, a in program.arrays.items() if n == "bottom2"])
        counted = labels.size if "Multi" in name else int((labels != 1).sum())
        np.testing.assert_allclose(found, inside * (counted - 1) / counted, rtol=1e-5)
