"""Every field of a parameter of Caffe's layers makes a difference, or is listed with a reason."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from layer_programs import layer_cases, layer_model, model_of
from tables.cases import LayerCase

from kdnet.data.transform import forced_channels
from kdnet.errors import KdnetError
from kdnet.graph import Emitter, to_model
from kdnet.layers import Trace, layer_class
from kdnet.net import LayerModel
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb

TESTS = Path(__file__).parent
Field = tuple[str, str]
OWN = 10000
# The last number of Caffe's layers; what comes after it is of forks, or kdnet's own.
CAFFE_LAST = 148
ENGINE = "which implementation computes it: results are the same"
IGNORED = {
    ("EltwiseParameter", "stable_prod_grad"): "the gradient is always the stable one",
    ("RecurrentParameter", "debug_info"): "debug_info of the solver shows every layer",
    ("ConvolutionParameter", "force_nd_im2col"): ENGINE,
}
# Of data layers, for which no graph can show it.
UNUSED = {
    ("DataParameter", "prefetch"): "kdnet reads ahead as many batches as it has use for",
    ("PythonParameter", "share_in_parallel"): "one device trains",
}
# Fields of layers whose tops come from outside: their tests have files of their own.
DATA = {
    *("DataParameter", "DummyDataParameter", "HDF5DataParameter", "HDF5OutputParameter"),
    *("ImageDataParameter", "InputParameter", "MemoryDataParameter", "PythonParameter"),
    *("TransformationParameter", "WindowDataParameter"),
}
ELSEWHERE = {
    ("DataParameter", "force_encoded_color"): "test_layer_fields.py",
    ("InfogainLossParameter", "source"): "test_catalogue.py",
}


def fields() -> list[Field]:
    """Every field of Caffe's in the parameters of Caffe's own layers."""
    found = []
    for parameter in pb.LayerParameter.DESCRIPTOR.fields:
        if parameter.name.endswith("_param") and parameter.number <= CAFFE_LAST:
            message = parameter.message_type
            found += [(message.name, f.name) for f in message.fields if f.number < OWN]
    return sorted(found)


def is_engine(field: Field) -> bool:
    return field[1] == "engine"


def is_filler(field: Field) -> bool:
    return field[1].endswith("filler") and field[0] not in DATA


LISTED = [f for f in fields() if is_engine(f) or f in IGNORED]
FILLERS = [f for f in fields() if is_filler(f)]
ELSEWHERE_ALL = [f for f in fields() if (f[0] in DATA or f in ELSEWHERE) and f not in UNUSED]
TRIED = sorted(set(fields()) - {*LISTED, *FILLERS, *ELSEWHERE_ALL, *UNUSED})


@cache
def rows() -> dict[str, list[tuple[LayerCase, LayerModel]]]:
    """The rows by the message that their layer reads."""
    found = defaultdict(list)
    for case in layer_cases():
        model = layer_model(case.prototxt, case.phase, len(case.bottoms), case.tops)
        params = layer_class(model).params_field
        names = {field.message_type.name for field, _ in model.message.ListFields() if _is(field)}
        if params:
            names.add(getattr(model.message, params).DESCRIPTOR.name)
        for name in names:
            found[name].append((case, model))
    return found


def _is(field: Any) -> bool:
    return field.message_type is not None and field.name.endswith("_param")


def parameters(message: pb.LayerParameter, name: str) -> Any:
    """The parameter message of a layer by its type's name."""
    fields_of = pb.LayerParameter.DESCRIPTOR.fields
    (field,) = (f for f in fields_of if f.message_type is not None and f.message_type.name == name)
    return getattr(message, field.name)


def copy_of(message: pb.LayerParameter) -> pb.LayerParameter:
    copy = pb.LayerParameter()
    copy.CopyFrom(message)
    return copy


def made(case: LayerCase, message: pb.LayerParameter) -> tuple[Any, ...]:
    """All that a layer says of itself: its graph, its weights, its noise; or its fault."""
    model = model_of(message, SourceMap.empty(), case.phase)
    g, trace = Emitter(), Trace()
    bottoms = [g.input(f"bottom{i}", shape) for i, shape in enumerate(case.bottoms)]
    layer = layer_class(model)(model, trace)
    try:
        layer.check(*bottoms)
        weights = layer.weights(*bottoms)
        given = [g.input(f"weight{i}", weight.shape) for i, weight in enumerate(weights)]
        tops = layer.emit(g, *bottoms, *given)
    except KdnetError as error:
        return (str(error),)
    tops = tops if isinstance(tops, tuple) else (tops,)
    noise = [noise.tensor for noise in trace.noise]
    inputs = [*bottoms, *given, *noise]
    outputs = {f"top{i}": top for i, top in enumerate(tops)}
    outputs |= {f"next{i}": value for i, value in enumerate(trace.updates.values())}
    graph = to_model(g.ops, inputs, outputs, name="n").SerializeToString(deterministic=True)
    declared = [(w.name, w.shape, w.filler.SerializeToString(deterministic=True)) for w in weights]
    return graph, declared, [(check.classes, check.ignore) for check in trace.labels]


@pytest.mark.parametrize("field", TRIED, ids=".".join)
def test_a_field_that_a_row_sets_makes_a_difference(field: Field) -> None:
    name, own = field
    changed = set()
    for case, model in rows()[name]:
        given = getattr(parameters(model.message, name), own)
        without = copy_of(model.message)
        parameters(without, name).ClearField(own)
        if without != model.message or given:
            changed.add(made(case, model.message) != made(case, without))
    assert changed, f"no row sets {name}.{own}"
    assert True in changed, f"{name}.{own} changes no row that sets it"


@pytest.mark.parametrize("field", FILLERS, ids=".".join)
def test_a_filler_reaches_the_weights(field: Field) -> None:
    name, own = field
    for case, model in rows()[name]:
        filled = copy_of(model.message)
        getattr(parameters(filled, name), own).CopyFrom(
            pb.FillerParameter(type="constant", value=7)
        )
        if made(case, model.message) != made(case, filled):
            return
    pytest.fail(f"{name}.{own} changes no row")


@pytest.mark.parametrize("field", LISTED, ids=".".join)
def test_a_field_that_is_listed_as_ignored_changes_nothing(field: Field) -> None:
    name, own = field
    assert rows()[name]
    for case, model in rows()[name]:
        descriptor = parameters(model.message, name).DESCRIPTOR.fields_by_name[own]
        for value in (1, 2) if is_engine(field) else (not descriptor.default_value,):
            other = copy_of(model.message)
            setattr(parameters(other, name), own, value)
            assert made(case, other) == made(case, model.message), case.id


@cache
def texts() -> str:
    """All that tests of data say, in Python and in prototxt."""
    paths = [*TESTS.glob("**/*.py"), *TESTS.glob("**/*.prototxt")]
    return "\n".join(path.read_text() for path in sorted(paths) if path != Path(__file__))


@pytest.mark.parametrize("field", ELSEWHERE_ALL, ids=".".join)
def test_a_field_of_data_is_set_in_a_test(field: Field) -> None:
    text = (TESTS / ELSEWHERE[field]).read_text() if field in ELSEWHERE else texts()
    assert re.search(rf"\b{field[1]} *(:|=|{{|\.add)", text), f"no test sets {'.'.join(field)}"


def test_unused_fields_are_read_nowhere() -> None:
    sources = [path.read_text() for path in (TESTS.parent / "kdnet").glob("**/*.py")]
    for _, own in UNUSED:
        assert not any(f".{own}" in text for text in sources), own


def test_encoded_records_are_made_coloured_where_the_data_parameter_says_so() -> None:
    text = 'type: "Data" data_param { force_encoded_color: true }'
    assert forced_channels(layer_model(text, "TRAIN", 0, 1)) == 3
    assert forced_channels(layer_model('type: "Data"', "TRAIN", 0, 1)) is None


def test_what_is_listed_are_fields() -> None:
    assert set(IGNORED) | set(UNUSED) <= set(fields())
    assert {name for name, _ in fields()} >= DATA
