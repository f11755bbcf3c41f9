"""The rules by which other frameworks' arrays become Caffe's blobs, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from tables.layouts import CASES, ONE, UNFIT, A, B, C, D, LayoutCase, ramp

from kdnet.weights import LayerBlobs
from kdnet.weights.layout import RULES, flatten_to_channels_first
from kdnet.weights.layout_onnx import NODE_RULES, Node
from kdnet.weights.layout_torch import to_torch
from kdnet.weights.nodes import layers_of_nodes
from kdnet.weights.tensors import Tensor, grouped, layers_of, split_name

IDS = [case.id for case in CASES]


def tensor(name: str, array: np.ndarray) -> Tensor:
    return Tensor(name, array.shape, "float16", lambda: array)


def test_every_rule_has_a_row() -> None:
    known = {rule.name for rule in (*RULES, *NODE_RULES.values())}
    assert {name.partition(",")[0] for name in IDS} == known
    assert sorted(set(IDS)) == IDS


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_rule(case: LayoutCase) -> None:
    group = {leaf: tensor(f"a.b/{leaf}", array) for leaf, array in case.arrays.items()}
    if case.op:
        inputs = tuple(found.name for found in group.values())
        node = Node(case.op, "/a.b/" + case.op, ("x", *inputs), ("y",), case.numbers)
        layers = list(layers_of_nodes([node], list(group.values())))
    else:
        layers = list(layers_of("a.b", group))
    assert [(layer.name, layer.type) for layer in layers] == [
        ("a.b" + suffix, kind) for suffix, kind, _ in case.layers
    ]
    for layer, (_, _, blobs) in zip(layers, case.layers, strict=True):
        assert len(layer.blobs) == len(layer.stored) == len(blobs)
        for found, expected in zip(layer.blobs, blobs, strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.shape == expected.shape
            assert found.dtype == np.float32


@pytest.mark.parametrize("name", UNFIT)
def test_other_shapes_stay_as_they_are(name: str) -> None:
    group = {leaf: tensor(f"a.{leaf}", array) for leaf, array in UNFIT[name].items()}
    layers = list(layers_of("a", group))
    assert sorted(layer.name for layer in layers) == sorted(f"a.{leaf}" for leaf in group)
    for layer in layers:
        np.testing.assert_array_equal(layer.blobs[0], UNFIT[name][layer.name[2:]])


def test_arrays_that_no_rule_knows_are_layers_of_their_own() -> None:
    tensors = [tensor(name, A) for name in ("a.weight", "a.position", "token", "a.bias")]
    layers = list(grouped(tensors))
    assert [(layer.name, len(layer.blobs)) for layer in layers] == [
        ("a", 2),
        ("a.position", 1),
        ("token", 1),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.weight", ("a.b", "weight")),
        ("a/b/kernel:0", ("a/b", "kernel")),
        ("weight", ("module", "weight")),
        ("rnn.weight_ih_l0", ("rnn", "weight_ih")),
        ("rnn.bias_hh_l1", ("rnn.l1", "bias_hh")),
        ("rnn.bias_hh_l0_reverse", ("rnn.l0_reverse", "bias_hh")),
        ("a.", ("module", "a.")),
        ("", ("module", "")),
    ],
)
def test_names_are_split_into_layer_and_part(name: str, expected: tuple[str, str]) -> None:
    assert split_name(name) == expected


def test_names_that_differ_in_separators_alone_stay_apart() -> None:
    layers = list(grouped([tensor("a.weight", A), tensor("a/weight", B)]))
    assert sorted(layer.name for layer in layers) == ["a", "a/weight"]


def test_flatten_puts_channels_first() -> None:
    maps = ramp(2, 3, 4)
    weight = ramp(5, 24, start=1)
    moved = flatten_to_channels_first(weight, 4)
    np.testing.assert_array_equal(
        moved @ np.moveaxis(maps, 2, 0).reshape(-1), weight @ maps.reshape(-1)
    )


# --- ONNX nodes


def onnx_layers(nodes: list[Node], **arrays: np.ndarray) -> list[tuple[str, str, int]]:
    layers = layers_of_nodes(nodes, [tensor(name, array) for name, array in arrays.items()])
    return [(layer.name, layer.type, len(layer.blobs)) for layer in layers]


@pytest.mark.parametrize(
    ("op", "weight", "added", "is_bias"),
    [
        ("Conv", (3, 2, 1, 1), (3, 1, 1), True),
        ("Conv", (3, 2, 1, 1), (1, 3, 1, 1), True),
        ("Conv", (3, 2, 1, 1), (3,), False),
        ("Conv", (3, 2, 1, 1), (1, 1, 3), False),
        ("Conv", (3, 2, 1, 1), (2, 1, 1), False),
        ("MatMul", (2, 3), (3,), True),
        ("MatMul", (2, 3), (1, 3), True),
        ("MatMul", (2, 3), (3, 1), False),
        ("MatMul", (3, 2), (3,), False),
    ],
)
def test_a_bias_added_behind_is_fused(
    op: str, weight: tuple[int, ...], added: tuple[int, ...], is_bias: bool
) -> None:
    nodes = [Node(op, "fc", ("x", "w"), ("y",)), Node("Add", "add", ("b", "y"), ("z",))]
    layers = onnx_layers(nodes, w=ramp(*weight), b=ramp(*added))
    kind = "Convolution" if op == "Conv" else "InnerProduct"
    rest = [] if is_bias else [("b", "", 1)]
    assert layers == [("fc", kind, 1 + is_bias), *rest]


def test_an_add_is_no_bias_when_others_read_the_same() -> None:
    nodes = [
        Node("MatMul", "fc", ("x", "w"), ("y",)),
        Node("Add", "add", ("y", "b"), ("z",)),
        Node("Relu", "relu", ("y",), ("r",)),
    ]
    layers = onnx_layers(nodes, w=ramp(2, 3), b=A)
    assert layers == [("fc", "InnerProduct", 1), ("b", "", 1)]


def test_shared_weights_and_scaled_products_are_left_to_their_names() -> None:
    twice = [Node("MatMul", name, ("x", "w"), (name,)) for name in ("one", "two")]
    assert onnx_layers(twice, w=ramp(2, 3)) == [("one", "InnerProduct", 1)]
    scaled = [Node("Gemm", "fc", ("x", "w"), ("y",), {"alpha": 0.5})]
    assert onnx_layers(scaled, w=ramp(2, 3)) == [("w", "", 1)]


def test_names_of_arrays_name_layers_before_names_of_nodes() -> None:
    nodes = [Node("Conv", "/body/conv/Conv", ("x", "w"), ("y",))]
    assert onnx_layers(nodes, w=ramp(1, 1, 1, 1))[0][0] == "body/conv"
    nodes = [Node("Conv", "/body/conv/Conv", ("x", "body.conv.weight"), ("y",))]
    assert onnx_layers(nodes, **{"body.conv.weight": ramp(1, 1, 1, 1)})[0][0] == "body.conv"
    nodes = [Node("Conv", "", ("x", "w"), ("y",))]
    assert onnx_layers(nodes, w=ramp(1, 1, 1, 1))[0][0] == "w"


# --- the way back


def test_batch_norm_and_scale_become_one_torch_module() -> None:
    layers = [
        LayerBlobs("conv", "Convolution", (A,)),
        LayerBlobs("bn", "BatchNorm", (2 * A, 2 * B, 2 * ONE)),
        LayerBlobs("sc", "Scale", (C, D)),
        LayerBlobs("fc", "InnerProduct", (A, B)),
    ]
    found = {
        name: blob
        for layer, names in to_torch(layers)
        for name, blob in zip(names, layer.blobs, strict=True)
    }
    expected = {
        "conv.weight": A,
        "bn.running_mean": A,
        "bn.running_var": B,
        "bn.weight": C,
        "bn.bias": D,
        "fc.weight": A,
        "fc.bias": B,
    }
    assert list(found) == list(expected)
    for name, blob in expected.items():
        np.testing.assert_array_equal(found[name], blob)
    back = list(grouped([tensor(name, blob) for name, blob in found.items()]))
    assert [layer.name for layer in back] == ["conv", "bn", "bn/scale", "fc"]
    np.testing.assert_array_equal(back[1].blobs[1], B)


@pytest.mark.parametrize(("factor", "share"), [(0, 0), (1, 1), (4, 0.25)])
def test_statistics_are_divided_by_their_factor(factor: float, share: float) -> None:
    layer = LayerBlobs("bn", "BatchNorm", (A, B, factor * ONE))
    ((made, _),) = to_torch([layer])
    np.testing.assert_array_equal(made.blobs[0], A * share)
    np.testing.assert_array_equal(made.blobs[1], B * share)


def test_a_scale_of_another_size_or_further_on_is_a_module_of_its_own() -> None:
    norm = LayerBlobs("bn", "BatchNorm", (A, B, ONE))
    other = LayerBlobs("sc", "Scale", (ramp(5),))
    near = LayerBlobs("sc", "Scale", (C,))
    relu = LayerBlobs("relu", "ReLU", ())
    conv = LayerBlobs("conv", "Convolution", (A,))
    names = [names for _, names in to_torch([norm, other])]
    assert names[1] == ("sc.weight",)
    assert [names for _, names in to_torch([norm, relu, near])][2] == ("bn.weight",)
    assert [names for _, names in to_torch([norm, conv, near])][2] == ("sc.weight",)
