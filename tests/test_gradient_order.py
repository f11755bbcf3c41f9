"""Gradients are emitted in the order in which they are asked for, never in a set's."""

from __future__ import annotations

from kdnet.autodiff import gradients
from kdnet.graph import Emitter


def test_sums_of_gradients_follow_the_wanted_order() -> None:
    g = Emitter()
    inputs = [g.input(f"x{index}", (2,)) for index in range(12)]
    squares = [g.square(x) for x in inputs]
    total = g.op("Sum", *squares, *inputs)
    found = gradients(g, [(total, g.constant([1.0, 1.0]))], reversed(inputs))
    assert list(found) == inputs[::-1]
    sums = [op.output for op in g.ops if op.type == "Add"]
    assert sums == list(found.values())
