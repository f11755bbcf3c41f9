"""What the configurations of Keras models say of the order of a dense layer's columns."""

from __future__ import annotations

import json

import pytest

from kdnet.weights.keras_config import read_config


def row(kind: str, name: str, inputs: object = (), **config: object) -> dict[str, object]:
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": inputs}


def sequential(*rows: dict[str, object]) -> str:
    return json.dumps({"class_name": "Sequential", "config": {"layers": rows}})


def functional(*rows: dict[str, object]) -> str:
    return json.dumps({"class_name": "Functional", "config": {"layers": rows}})


def keras_2(*names: str) -> list[object]:
    return [[[name, 0, 0, {}] for name in names]]


def keras_3(*names: str) -> list[object]:
    tensors = [
        {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}
        for name in names
    ]
    return [{"args": tensors, "kwargs": {}}]


CONV = row("Conv2D", "conv", filters=8)
FLAT = row("Flatten", "flat")
DENSE = row("Dense", "fc")

# Dense layer -> channels, and the layers of which nothing certain is known.
CASES: dict[str, tuple[str, dict[str, int], tuple[str, ...]]] = {
    "between": (
        sequential(CONV, row("MaxPooling2D", "p"), FLAT, row("Dropout", "d"), DENSE),
        {"fc": 8},
        (),
    ),
    "channels-first": (
        sequential(row("Conv2D", "conv", filters=8, data_format="channels_first"), FLAT, DENSE),
        {"fc": 1},
        (),
    ),
    "depthwise": (
        sequential(CONV, row("DepthwiseConv2D", "dw", depth_multiplier=2), FLAT, DENSE),
        {"fc": 16},
        (),
    ),
    "inner-model": (sequential(row("Functional", "body"), FLAT, DENSE), {}, ("body", "fc")),
    "input": (
        sequential(row("InputLayer", "in", batch_shape=[None, 5, 5, 3]), FLAT, DENSE),
        {"fc": 3},
        (),
    ),
    "input-of-rows": (
        sequential(row("InputLayer", "in", batch_input_shape=[None, 28, 28]), FLAT, DENSE),
        {"fc": 1},
        (),
    ),
    "keras-2": (
        functional(
            row("Conv2D", "conv", [], filters=8),
            row("BatchNormalization", "bn", keras_2("conv")),
            row("Flatten", "flat", keras_2("bn")),
            row("Dense", "fc", keras_2("flat")),
        ),
        {"fc": 8},
        (),
    ),
    "keras-3": (
        functional(
            row("Conv2D", "one", [], filters=4),
            row("Conv2D", "two", [], filters=4),
            row("Add", "sum", keras_3("one", "two")),
            row("Flatten", "flat", keras_3("sum")),
            row("Dense", "fc", keras_3("flat")),
        ),
        {"fc": 4},
        (),
    ),
    "no-flatten": (sequential(CONV, row("GlobalAveragePooling2D", "gap"), DENSE), {}, ()),
    "old-list": (
        json.dumps({"class_name": "Sequential", "config": [CONV, FLAT, DENSE]}),
        {"fc": 8},
        (),
    ),
    "second-dense": (sequential(CONV, FLAT, DENSE, row("Dense", "fc2")), {"fc": 8}, ()),
    "unknown-maps": (sequential(CONV, row("Lambda", "odd"), FLAT, DENSE), {}, ("fc",)),
    "weights-between": (
        sequential(CONV, FLAT, row("BatchNormalization", "bn"), DENSE),
        {},
        ("fc",),
    ),
    "without-input": (sequential(FLAT, DENSE), {}, ("fc",)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_dense_layers_flatten(name: str) -> None:
    text, flattened, unknown = CASES[name]
    found = read_config(text)
    assert found is not None
    assert found.flattened == flattened
    assert found.unknown == unknown
    assert found.classes["fc"] == "Dense"


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        "",
        "[]",
        "{",
        "null",
        '{"class_name": "Sequential", "config": [1]}',
        "[" * 100_000,
        functional(row("Dense", "fc", None), {"class_name": "Dense", "config": {}}),
        sequential(*[row("Dropout", f"d{index}") for index in range(5000)]),
    ],
)
def test_other_texts_are_no_configuration(text: object) -> None:
    assert read_config(text) is None


def test_cycles_end() -> None:
    text = functional(
        row("Dropout", "a", keras_2("b")),
        row("Dropout", "b", keras_2("a")),
        row("Dense", "fc", keras_2("a")),
    )
    found = read_config(text)
    assert found is not None
    assert found.flattened == {}
