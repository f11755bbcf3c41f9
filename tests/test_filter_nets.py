"""Nets with a Filter against the same nets on the kept items alone; what they are refused for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from gradcheck import Array, onnxruntime_run

from kdnet.autodiff import gradients
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.frozen import cut_frozen
from kdnet.errors import LayerError
from kdnet.graph import Emitter, to_model
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text
from kdnet.weights import philox

ITEMS, FEATURES, CLASSES = 6, 4, 3
BEFORE = """
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 5 } }
"""
FILTER = """
layer { name: "filter" type: "Filter" bottom: "ip1" bottom: "label" bottom: "selector"
  top: "few" top: "few_labels" }
"""
AFTER = """
layer { name: "relu" type: "TanH" bottom: "few" top: "few" }
layer { name: "ip2" type: "InnerProduct" bottom: "few" top: "ip2"
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "few_labels" top: "loss" }
layer { name: "squares" type: "EuclideanLoss" bottom: "ip2" bottom: "ip2" top: "squares" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "few_labels" top: "accuracy" }
"""
WITHOUT = BEFORE.replace('top: "ip1"', 'top: "few"') + AFTER.replace("few_labels", "label")


def inputs(items: int) -> dict[str, tuple[int, ...]]:
    return {"data": (items, FEATURES), "label": (items,), "selector": (items,)}


def net_of(text: str, items: int = ITEMS) -> NetModel:
    given = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {size}' for size in shape)} }} }} }}\n"
        for name, shape in inputs(items).items()
    )
    located = read_text(given + text, "net.prototxt", pb.NetParameter)
    return resolve_net(located.message, located.source, NetState(pb.TRAIN))


def traced(text: str, items: int = ITEMS, *, apart: bool = False) -> tuple[Emitter, Forward]:
    g = Emitter()
    return g, trace_forward(net_of(text, items), g, apart=apart)


def outcome(text: str, feeds: Mapping[str, Array], *, apart: bool = False) -> dict[str, Array]:
    """Losses, metrics, and the losses' gradients by every weight, which is drawn by its name."""
    g, forward = traced(text, len(feeds["data"]), apart=apart)
    seeds = [(loss.top, g.constant(1.0)) for loss in forward.losses]
    found = gradients(g, seeds, forward.weights)
    outputs = {name: forward.blobs[name] for name in ("loss", "squares", "accuracy")}
    outputs |= {f"d/{tensor.name}": value for tensor, value in found.items()}
    weights = {t.name: philox(3, t.name).standard_normal(t.shape) for t in forward.weights}
    tensors = [*forward.trace.data.values(), *forward.weights]
    model = to_model(g.ops, tensors, outputs, name="net")
    return onnxruntime_run(model, {**feeds, **weights})


def feeds(selector: list[float]) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    return {
        "data": rng.standard_normal((ITEMS, FEATURES)),
        "label": rng.integers(0, CLASSES, ITEMS).astype(np.float32),
        "selector": np.array(selector, np.float32),
    }


@pytest.mark.parametrize("selector", [[0, 1, 0, 2, -1, 0], [0, 0, 0, 0, 0, 1], [1] * ITEMS])
def test_losses_and_gradients_are_those_of_the_kept_items(selector: list[float]) -> None:
    given = feeds(selector)
    kept = np.flatnonzero(given["selector"])
    found = outcome(BEFORE + FILTER + AFTER, given)
    expected = outcome(WITHOUT, {name: array[kept] for name, array in given.items()})
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_without_an_item_losses_and_gradients_are_zero() -> None:
    found = outcome(BEFORE + FILTER + AFTER, feeds([0] * ITEMS))
    assert all(np.array_equal(value, np.zeros_like(value)) for value in found.values())


def test_filters_by_one_blob_match_even_where_layers_read_copies() -> None:
    twice = """
layer { name: "f1" type: "Filter" bottom: "ip1" bottom: "selector" top: "few" }
layer { name: "f2" type: "Filter" bottom: "label" bottom: "selector" top: "few_labels" }
"""
    given = feeds([0, 1, 0, 1, 1, 0])
    once = outcome(BEFORE + FILTER + AFTER, given)
    for apart in (False, True):
        found = outcome(BEFORE + twice + AFTER, given, apart=apart)
        assert {name: float(found[name]) for name in ("loss", "accuracy")} == pytest.approx(
            {name: float(once[name]) for name in ("loss", "accuracy")}, rel=1e-6
        )


def test_a_filter_behind_a_filter_keeps_what_both_do() -> None:
    nested = """
layer { name: "f1" type: "Filter" bottom: "ip1" bottom: "label" bottom: "selector"
  bottom: "selector" top: "a" top: "b" top: "c" }
layer { name: "again" type: "Power" bottom: "c" top: "d" power_param { shift: -1 } }
layer { name: "f2" type: "Filter" bottom: "a" bottom: "b" bottom: "d" top: "few"
  top: "few_labels" }
"""
    found = outcome(BEFORE + nested + AFTER, feeds([2, 1, 0, 2, 1, 0]))
    expected = outcome(BEFORE + FILTER + AFTER, feeds([1, 0, 0, 1, 0, 0]))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_is_made_of_filtered_blobs_is_filtered_and_nothing_else() -> None:
    text = """
layer { name: "f" type: "Filter" bottom: "ip1" bottom: "selector" top: "ip1" }
layer { name: "anew" type: "Reduction" bottom: "ip1" top: "sums" reduction_param { axis: 1 } }
layer { name: "whole" type: "TanH" bottom: "data" top: "tanh" }
"""
    _, forward = traced(BEFORE + text)
    assert set(forward.trace.kept) == {"ip1", "sums"}


def test_a_loss_weight_for_filtered_items_is_refused() -> None:
    text = 'layer { name: "sum" type: "TanH" bottom: "few" top: "y" loss_weight: 1 }\n'
    with pytest.raises(LayerError, match=r'sum of top "y".*\[filtered-batch\]'):
        traced(BEFORE + FILTER + text)


def test_a_frozen_part_ends_where_it_is_filtered() -> None:
    frozen = BEFORE.replace('top: "ip1"', 'top: "ip1" param { lr_mult: 0 } param { lr_mult: 0 }')
    again = """
layer { name: "ip3" type: "InnerProduct" bottom: "few" top: "ip3" param { lr_mult: 0 }
  param { lr_mult: 0 } inner_product_param { num_output: 3 } }
layer { name: "near" type: "EuclideanLoss" bottom: "ip3" bottom: "ip2" top: "near" }
"""
    cut = cut_frozen(net_of(frozen + FILTER + AFTER + again))
    assert [found.blob for found in cut.frontier] == ["ip1"]
