"""Unrolled layers: what a step costs, and the gradient rules that keep it from growing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from gradcheck import Program, check_all
from layer_programs import layer_model

from kdnet.autodiff import gradients
from kdnet.graph import Emitter, Op, Tensor
from kdnet.layers import Trace, layer_class

STREAMS, FEATURES = 2, 3
KINDS = ("LSTM", "RNN")
OF_STEP = {"Sigmoid": "SigmoidOfStep", "Tanh": "TanhOfStep"}


def unrolled(kind: str, steps: int) -> tuple[list[Op], set[Tensor]]:
    """The ops of a layer and its gradients, and the gradient that arrives at its top."""
    text = f'type: "{kind}" recurrent_param {{ num_output: 4 }}'
    model = layer_model(text, "TRAIN", 2, 1)
    g = Emitter()
    bottoms = g.input("bottom0", (steps, STREAMS, FEATURES)), g.input("bottom1", (steps, STREAMS))
    layer = layer_class(model)(model, Trace())
    weights = [g.input(weight.name, weight.shape) for weight in layer.weights(*bottoms)]
    with g.scope("layer"):
        (top,) = layer.emit(g, *bottoms, *weights)
    seed = g.input("seed", top.shape)
    gradients(g, [(top, seed)], [bottoms[0], *weights])
    return g.ops, {seed}


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_costs_as_many_nodes_as_the_one_before(kind: str) -> None:
    counts = [len(unrolled(kind, steps)[0]) for steps in (8, 16, 24, 32)]
    assert len({after - before for before, after in pairwise(counts)}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_node_of_a_step_s_gradient_is_ready_before_the_gradient_is(kind: str) -> None:
    ops, waiting = unrolled(kind, 16)
    for op in ops:
        if waiting.intersection(op.inputs):
            waiting.update(op.outputs)
    of_steps = [op for op in ops if op.name.startswith("grad/layer/step")]
    assert len(of_steps) > 16
    assert [op.name for op in of_steps if not waiting.intersection(op.inputs)] == []


@pytest.mark.parametrize("op_type", OF_STEP)
def test_the_rules_of_steps_are_those_of_their_ops(op_type: str) -> None:
    x = np.linspace(-4, 4, 24).reshape(2, 3, 4)

    def build(rule: str):
        return lambda g, given: {"y": g.op(op_type, given["x"], rule=rule)}

    check = check_all(Program(build(OF_STEP[op_type]), {"x": x}, ("x",)))
    own = check_all(Program(build(""), {"x": x}, ("x",)))
    assert np.allclose(check.gradient("x"), own.gradient("x"), rtol=1e-12, atol=1e-15)
