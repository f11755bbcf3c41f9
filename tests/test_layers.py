"""Every layer against its oracle, its gradient against differences, its graph against ONNX."""

from __future__ import annotations

import inspect
from functools import cache

import numpy as np
import pytest
from gradcheck import Check, Traced, onnxruntime_run, relative_error
from layer_programs import (
    case_model,
    case_program,
    emitted,
    expected,
    layer_cases,
    layer_model,
    run_unoptimised,
)
from tables.cases import LayerCase
from tables.layers_data import CASES as DATA_CASES
from tables.layers_data import DataCase

from kdnet.autodiff import gradients
from kdnet.graph import Emitter, to_model
from kdnet.layers import DataLayer, Trace, layer_class, layer_types

CASES = {case.id: case for case in layer_cases()}
COMPUTING = [case_id for case_id, case in CASES.items() if case.tops]
WITH_GRADIENT = [case_id for case_id in COMPUTING if CASES[case_id].wrt != []]
FORWARD_TOL = 1e-9


@cache
def checked(case_id: str) -> Check:
    case = CASES[case_id]
    return Check(case_program(case), case.tol, case.ort_tol)


@pytest.mark.parametrize("case_id", COMPUTING)
def test_forward_equals_the_oracle(case_id: str) -> None:
    check = checked(case_id)
    with np.errstate(divide="ignore"):
        found = check.forward()
    wanted = expected(CASES[case_id], check.program)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert relative_error(found[name], value) <= FORWARD_TOL, name


@pytest.mark.parametrize("case_id", WITH_GRADIENT)
def test_gradient_equals_finite_differences(case_id: str) -> None:
    check = checked(case_id)
    with np.errstate(divide="ignore"):
        check.finite_differences()


@pytest.mark.parametrize("case_id", COMPUTING)
def test_shapes_equal_strict_inference(case_id: str) -> None:
    with np.errstate(divide="ignore"):
        checked(case_id).shapes()


@pytest.mark.parametrize("case_id", COMPUTING)
def test_the_checker_accepts_the_graph(case_id: str) -> None:
    checked(case_id).checker()


@pytest.mark.parametrize("case_id", COMPUTING)
def test_onnxruntime_equals_the_reference(case_id: str) -> None:
    with np.errstate(divide="ignore"):
        checked(case_id).float32()


@pytest.mark.parametrize("case_id", COMPUTING)
def test_two_compilations_give_the_same_bytes(case_id: str) -> None:
    checked(case_id).stable()


@pytest.mark.parametrize("case_id", COMPUTING)
def test_nothing_is_emitted_in_vain(case_id: str) -> None:
    checked(case_id).frozen()


@pytest.mark.parametrize("case_id", COMPUTING)
def test_optimisations_change_nothing(case_id: str) -> None:
    program = checked(case_id).program
    single = Traced(program, np.float32)
    found = {f"d/{name}": tensor for name, tensor in single.with_gradients(program.wrt).items()}
    model = single.model(single.outputs | found)
    arrays = {**program.arrays, **checked(case_id).seeds}
    plain = run_unoptimised(model, arrays)
    for name, value in onnxruntime_run(model, arrays).items():
        assert relative_error(value, plain[name]) <= 1e-6, name


@pytest.mark.parametrize("case", DATA_CASES, ids=[case.id for case in DATA_CASES])
def test_data_layers_know_their_shapes_without_data(case: DataCase) -> None:
    model = layer_model(case.prototxt, "TRAIN", 0, len(case.shapes))
    trace = Trace(input_shapes=dict(case.given))
    layer = layer_class(model)(model, trace)
    assert isinstance(layer, DataLayer)
    tops = layer.emit(Emitter())
    assert tuple(top.shape for top in tops) == case.shapes
    assert trace.data == dict(zip(model.tops, tops, strict=True))


def _graph(case_id: str) -> tuple[Emitter, dict]:
    case = CASES[case_id]
    g = Emitter()
    program = checked(case_id).program
    given = {name: g.input(name, array.shape) for name, array in program.arrays.items()}
    return g, {"case": case, "inputs": given, "emitted": emitted(g, case_model(case), given)}


def test_silence_emits_nothing() -> None:
    g, parts = _graph("Silence/two")
    assert parts["emitted"].tops == ()
    assert g.ops == []


@pytest.mark.parametrize(
    "case_id",
    [
        "Concat/one",
        "Dropout/ratio_0",
        "Dropout/test_phase",
        "Power/identity",
        "Slice/one",
        "Split/two",
    ],
)
def test_what_computes_nothing_emits_nothing(case_id: str) -> None:
    g, parts = _graph(case_id)
    assert g.ops == []
    assert set(parts["emitted"].tops) == {parts["inputs"]["bottom0"]}


@pytest.mark.parametrize(
    "case_id",
    [
        "Accuracy/default",
        "SigmoidCrossEntropyLoss/default",
        "SoftmaxWithLoss/default",
        "TeacherStudentCrossEntropy/default",
    ],
)
def test_targets_and_teachers_get_no_gradient(case_id: str) -> None:
    g, parts = _graph(case_id)
    top = parts["emitted"].tops[0]
    seeds = [(top, g.constant(np.ones(top.shape)))]
    assert gradients(g, seeds, [parts["inputs"]["bottom1"]]) == {}


def test_labels_are_announced_with_their_range() -> None:
    _, parts = _graph("Accuracy/axis_ignore_label")
    (check,) = parts["emitted"].layer.trace.labels
    assert check.tensor is parts["inputs"]["bottom1"]
    assert (check.classes, check.ignore) == (4, 2)


def test_a_label_that_is_no_class_adds_nothing() -> None:
    case = CASES["SoftmaxWithLoss/default"]
    program = case_program(case)
    labels = program.arrays["bottom1"].copy()
    labels[:2] = [-1, 99]
    arrays = {**program.arrays, "bottom1": labels}
    model = Traced(program, np.float32)
    (loss,) = onnxruntime_run(model.model(model.outputs), arrays).values()
    inside = case.oracle(arrays["bottom0"][2:], labels[2:]) * 3 / 5
    assert relative_error(loss, inside) < 1e-6


def test_identical_nets_have_no_distillation_gradient() -> None:
    program = case_program(CASES["TeacherStudentCrossEntropy/temperature"])
    arrays = {**program.arrays, "bottom1": program.arrays["bottom0"], "seed/top0": np.ones(())}
    traced = Traced(program)
    gradient = traced.with_gradients(("bottom0",))["bottom0"]
    found = onnxruntime_run(traced.model({"gradient": gradient}), arrays)
    assert np.max(np.abs(found["gradient"])) < 1e-15


def test_a_tie_of_two_maxima_goes_to_the_second_bottom() -> None:
    text = 'type: "Eltwise" eltwise_param { operation: MAX }'
    model = layer_model(text, "TRAIN", 3, 1)
    g = Emitter()
    given = {name: g.input(name, (3,)) for name in model.bottoms}
    top = emitted(g, model, given).tops[0]
    found = gradients(g, [(top, g.constant(np.ones(3)))], given.values())
    outputs = {f"d/{name}": found[tensor] for name, tensor in given.items()}
    onnx_model = to_model(g.ops, list(given.values()), outputs, name="ties")
    arrays = {
        "bottom0": np.array([1.0, 1.0, 0.0]),
        "bottom1": np.array([1.0, 0.0, 0.0]),
        "bottom2": np.array([0.0, 1.0, 1.0]),
    }
    shares = {name: value.tolist() for name, value in onnxruntime_run(onnx_model, arrays).items()}
    assert shares == {"d/bottom0": [0, 1, 0], "d/bottom1": [1, 0, 0], "d/bottom2": [0, 0, 1]}


def test_every_layer_type_has_a_row() -> None:
    rows = {case_id.split("/")[0] for case_id in CASES}
    rows |= {case.id.split("/")[0] for case in DATA_CASES}
    # What a Python layer computes is the user's: test_python_layers.py runs some.
    assert rows == set(layer_types()) - {"Python"}


def test_rows_are_sorted_by_name_and_unique() -> None:
    assert [case.id for case in DATA_CASES] == sorted({case.id for case in DATA_CASES})
    assert len(CASES) == len(layer_cases())


@pytest.mark.parametrize("case", [*layer_cases(), *DATA_CASES], ids=lambda case: case.id)
def test_a_row_is_named_after_its_type(case: LayerCase | DataCase) -> None:
    assert case.prototxt.startswith(f'type: "{case.id.split("/")[0]}"')


@pytest.mark.parametrize("type_name", layer_types())
def test_docstrings_follow_the_template(type_name: str) -> None:
    model = layer_model(f'type: "{type_name}"', "TRAIN", 0, 0)
    text = inspect.cleandoc(layer_class(model).__doc__ or "")
    headings = ("Shapes:", "Parameters:", "Gradient:", "Differs from Caffe:", "Faults:", "Source:")
    places = [text.find(f"\n{heading}") for heading in headings]
    assert -1 not in places
    assert places == sorted(places)
    assert text.splitlines()[0].endswith(".")
