"""Two graphs of one net at two batch sizes: what may differ, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kdnet.compile.deploy import batch as deploy_batch
from kdnet.compile.deploy.batch import BATCHES, free_batch
from kdnet.compile.forward import Forward
from kdnet.compile.weights import WeightTable
from kdnet.errors import KdnetError
from kdnet.graph import Emitter, Tensor
from kdnet.layers import Trace
from kdnet.net import NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

NET = """
layer { name: "data" type: "Input" top: "data" }
layer { name: "own" type: "ReLU" bottom: "data" top: "y" }
"""
Build = Callable[[Emitter, Tensor, int], Tensor]


def merged(monkeypatch: pytest.MonkeyPatch, build: Build) -> deploy_batch.FreeGraph:
    """The free graph of a layer that emits what ``build`` does, for a batch of ... x 4."""
    located = read_text(NET, "net.prototxt", pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(pb.TEST))

    def traced(_net: object, shapes: dict[str, tuple[int, ...]]) -> Forward:
        g = Emitter()
        x = g.input("data", shapes["data"])
        forward = Forward(net, g, Trace(data={"data": x}), WeightTable(), blobs={"data": x})
        with g.scope("own", "net.prototxt:3:1"):
            forward.blobs["y"] = build(g, x, shapes["data"][0])
        return forward

    monkeypatch.setattr(deploy_batch, "_trace", traced)
    return free_batch(net, {"data": (1, 4)}, "y")


def other_op(g: Emitter, x: Tensor, batch: int) -> Tensor:
    return g.relu(x) if batch == BATCHES[0] else g.tanh(x)


def other_attribute(g: Emitter, x: Tensor, batch: int) -> Tensor:
    return g.op("LeakyRelu", x, alpha=1 / batch)


def other_inputs(g: Emitter, x: Tensor, batch: int) -> Tensor:
    return g.op("Sum", *[x] * (batch // 4))


def absent_input(g: Emitter, x: Tensor, batch: int) -> Tensor:
    low = g.constant(0.0) if batch == BATCHES[0] else None
    return g.op("Clip", x, low, g.constant(1.0))


def more_ops(g: Emitter, x: Tensor, batch: int) -> Tensor:
    y = g.relu(x)
    return y if batch == BATCHES[0] else g.relu(y)


def other_blob(g: Emitter, x: Tensor, batch: int) -> Tensor:
    a, b = g.relu(x), g.tanh(x)
    return g.op("Concat", *((a, b, a) if batch == BATCHES[0] else (a, b, b)), axis=1)


def mean_by_a_constant(g: Emitter, x: Tensor, batch: int) -> Tensor:
    return g.mul(x, 1.0 / batch)


def unsteady_shape(g: Emitter, x: Tensor, batch: int) -> Tensor:
    return g.reshape(g.relu(x), (2, batch * 2) if batch == BATCHES[0] else (batch * 4, 1))


REFUSED = {
    other_op: "its Relu differs",
    other_attribute: "its LeakyRelu differs",
    other_inputs: "its Sum differs",
    absent_input: "its Clip differs",
    more_ops: "it emits other ops",
    other_blob: "its Concat reads another blob",
    mean_by_a_constant: "a constant of its Mul depends on it",
    unsteady_shape: "a shape of its Reshape does not scale",
}


@pytest.mark.parametrize("build", REFUSED, ids=lambda build: build.__name__)
def test_what_else_differs_is_refused(monkeypatch: pytest.MonkeyPatch, build: Build) -> None:
    with pytest.raises(KdnetError, match="batch-bound") as caught:
        merged(monkeypatch, build)
    text = str(caught.value)
    assert f'layer "own" (ReLU) works for one batch size only: {REFUSED[build]}' in text
    assert text.startswith("net.prototxt:3:1: error:")


def test_a_shape_with_one_axis_of_the_batch_infers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = merged(monkeypatch, lambda g, x, batch: g.reshape(x, (2, batch, 2)))
    (op,) = graph.ops
    np.testing.assert_array_equal(op.input(1).value, [2, -1, 2])
    assert graph.axes[graph.output] == (2, "N", 2)
    assert graph.axes[graph.inputs[0]] == ("N", 4)


def test_what_is_no_reshape_gets_its_numbers_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(g: Emitter, x: Tensor, batch: int) -> Tensor:
        last = g.slice(x, [0], [batch - 1], [batch])
        return g.add(g.expand(last, (batch, 4)), g.expand(last, (batch, 4)))

    graph = merged(monkeypatch, build)
    types = [op.type for op in graph.ops]
    assert types.count("Shape") == 1
    assert types == [
        "Shape",
        "Mul",
        "Add",
        "Mul",
        "Slice",
        "Mul",
        "Add",
        "Expand",
        "Expand",
        "Add",
    ]
    assert len({op.name for op in graph.ops}) == len(graph.ops)


def test_an_axis_that_grows_with_the_batch_but_not_in_step_has_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = merged(monkeypatch, lambda g, x, batch: g.slice(x, [0], [1], [batch]))
    assert graph.axes[graph.output] == ("own/Slice_0", 4)
