"""The reverse walk: which ops it visits, how it sums, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from kdnet.autodiff import gradients, is_differentiable
from kdnet.autodiff.registry import Call, key_of, rule_of
from kdnet.errors import GraphError
from kdnet.graph import Emitter, Tensor, to_model

X = np.array([[0.5, -1.25, 2.0], [1.5, 0.75, -0.5]])
W = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, -1.5]])


def double() -> Emitter:
    return Emitter(np.float64)


def evaluate(g: Emitter, feeds: dict[Tensor, np.ndarray], *outputs: Tensor) -> list[np.ndarray]:
    named = {f"out/{index}": tensor for index, tensor in enumerate(outputs)}
    model = to_model(g.ops, list(feeds), named, name="walk")
    return ReferenceEvaluator(model).run(None, {t.name: a for t, a in feeds.items()})


def derivative(g: Emitter, y: Tensor, x: Tensor, value: np.ndarray) -> np.ndarray:
    seed = g.expand(g.constant(1.0), y.shape)
    return evaluate(g, {x: value}, gradients(g, [(y, seed)], [x])[x])[0]


def emitted_after(g: Emitter, y: Tensor, wanted: list[Tensor]) -> list[str]:
    seed = g.expand(g.constant(1.0), y.shape)
    before = len(g.ops)
    gradients(g, [(y, seed)], wanted)
    return [op.name for op in g.ops[before:]]


def test_a_tensor_read_often_gets_the_sum_of_its_gradients() -> None:
    g = double()
    x = g.input("x", X.shape)
    y = g.add(g.add(g.mul(x, 3.0), g.square(x)), x)
    np.testing.assert_allclose(derivative(g, y, x, X), 4 + 2 * X)


def test_several_seeds_of_one_tensor_and_of_two_add_up() -> None:
    g = double()
    x = g.input("x", X.shape)
    y, z = g.mul(x, 2.0), g.square(x)
    one = g.expand(g.constant(1.0), X.shape)
    found = gradients(g, [(y, one), (y, one), (z, one)], [x])
    np.testing.assert_allclose(evaluate(g, {x: X}, found[x])[0], 4 + 2 * X)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (1, 1), ()])
def test_a_broadcast_input_gets_the_sum_over_its_copies(shape: tuple[int, ...]) -> None:
    g = double()
    x, w = g.input("x", X.shape), g.input("w", shape)
    found = gradients(g, [(g.mul(x, w), g.constant(W))], [w])[w]
    value = np.full(shape, 2.0)
    (result,) = evaluate(g, {x: X, w: value}, found)
    axes = tuple(range(2 - len(shape))) + tuple(
        2 - len(shape) + axis for axis, size in enumerate(shape) if size == 1
    )
    assert result.shape == shape
    np.testing.assert_allclose(result, (X * W).sum(axis=axes).reshape(shape))


def test_a_wanted_tensor_may_lie_in_the_middle_or_be_the_loss_itself() -> None:
    g = double()
    x = g.input("x", X.shape)
    middle = g.mul(x, 2.0)
    y = g.square(middle)
    seed = g.constant(W)
    found = gradients(g, [(y, seed)], [x, middle, y])
    at_x, at_middle, at_y = evaluate(g, {x: X}, found[x], found[middle], found[y])
    np.testing.assert_allclose(at_x, W * 8 * X)
    np.testing.assert_allclose(at_middle, W * 4 * X)
    np.testing.assert_allclose(at_y, W)


def test_what_no_seed_depends_on_is_absent_and_not_zero() -> None:
    g = double()
    x, other = g.input("x", X.shape), g.input("other", X.shape)
    y = g.mul(x, 2.0)
    g.mul(other, 2.0)
    assert set(gradients(g, [(y, y)], [x, other])) == {x}


def test_only_paths_from_the_loss_to_what_is_wanted_are_visited() -> None:
    g = double()
    x, teacher, student = (g.input(name, (3, 3)) for name in ("x", "teacher", "student"))
    with g.scope("teacher"):
        frozen = g.tanh(g.matmul(g.exp(x), teacher))
    with g.scope("student"):
        trained = g.matmul(x, student)
    with g.scope("loss"):
        y = g.mul(trained, frozen)
    names = emitted_after(g, y, [student])
    assert names
    assert not any("teacher" in name for name in names)
    assert {name.split("/")[1] for name in names} == {"loss", "student"}


def test_layers_below_the_lowest_wanted_weight_are_not_visited() -> None:
    g = double()
    x, low, high = g.input("x", (3, 3)), g.input("low", (3, 3)), g.input("high", (3, 3))
    with g.scope("low"):
        hidden = g.tanh(g.matmul(x, low))
    with g.scope("high"):
        y = g.matmul(hidden, high)
    assert all("grad/high" in name for name in emitted_after(g, y, [high]))


def test_flat_ops_end_the_walk_without_a_word() -> None:
    g = double()
    x = g.input("x", X.shape)
    mask = g.cast(g.greater(x, 0.0))
    y = g.add(g.mul(x, mask), g.stop_gradient(g.square(x)))
    np.testing.assert_allclose(derivative(g, y, x, X), (X > 0).astype(float))
    assert not is_differentiable(next(op for op in g.ops if op.type == "Greater"))


def test_a_branch_behind_stop_gradient_alone_has_no_gradient() -> None:
    g = double()
    x = g.input("x", X.shape)
    y = g.square(g.stop_gradient(x))
    assert gradients(g, [(y, y)], [x]) == {}


def test_markers_keep_the_value_and_change_the_gradient() -> None:
    g = double()
    x = g.input("x", X.shape)
    scaled = g.scale_gradient(x, -0.5)
    rounded = g.straight_through(g.op("Round", x), x)
    value, through = evaluate(g, {x: X}, scaled, rounded)
    np.testing.assert_allclose(value, X)
    np.testing.assert_allclose(through, np.round(X))
    np.testing.assert_allclose(derivative(g, scaled, x, X), np.full(X.shape, -0.5))
    np.testing.assert_allclose(derivative(g, rounded, x, X), np.ones(X.shape))


def test_only_the_used_output_of_an_op_gets_a_gradient() -> None:
    g = double()
    x = g.input("x", (2, 4))
    left, right = g.multi("Split", x, count=2, axis=1, num_outputs=2)
    assert left.shape == right.shape == (2, 2)
    value = np.arange(8.0).reshape(2, 4)
    expected = np.concatenate([np.zeros((2, 2)), 2 * value[:, 2:]], axis=1)
    np.testing.assert_allclose(derivative(g, g.square(right), x, value), expected)


def test_an_op_without_a_rule_is_named_with_its_place() -> None:
    g = double()
    x = g.input("x", (2, 3))
    with g.scope("odd", "net.prototxt:7:3"):
        y = g.op("Det", g.matmul(x, g.transpose(x, [1, 0])))
    with pytest.raises(GraphError) as caught:
        gradients(g, [(y, y)], [x])
    assert str(caught.value) == (
        "error: Det has no gradient rule: odd/Det (net.prototxt:7:3) [no-gradient-rule]"
    )


def test_an_op_without_a_rule_does_no_harm_off_the_path() -> None:
    g = double()
    x, w = g.input("x", (3, 3)), g.input("w", (3, 3))
    y = g.mul(w, g.op("Det", x))
    assert set(gradients(g, [(y, y)], [w])) == {w}


def test_a_case_without_a_gradient_is_named_with_its_place() -> None:
    g = double()
    x = g.input("x", (2, 3))
    with g.scope("odd", "net.prototxt:7:3"):
        y = g.op("Resize", x, None, None, g.ints(1, 2), mode="linear", antialias=1)
    with pytest.raises(GraphError) as caught:
        gradients(g, [(y, y)], [x])
    assert str(caught.value) == (
        "error: no gradient of Resize with antialias, at odd/Resize "
        "(net.prototxt:7:3) [unsupported-gradient]"
    )


def test_an_op_that_onnx_refuses_is_told_with_shapes_and_place() -> None:
    g = double()
    x = g.input("x", (2, 3))
    with g.scope("odd", "net.prototxt:7:3"), pytest.raises(GraphError) as caught:
        g.matmul(x, x)
    text = str(caught.value)
    assert text.startswith("error: MatMul of (2, 3), (2, 3) (net.prototxt:7:3): ")
    assert text.endswith("[op-misuse]")


def test_gradient_ops_stand_under_their_op_and_carry_its_place() -> None:
    g = double()
    x = g.input("x", X.shape)
    with g.scope("net/tanh", "net.prototxt:3:1"):
        y = g.tanh(x)
    before = len(g.ops)
    gradients(g, [(y, g.constant(W))], [x])
    assert len(g.ops) > before
    for op in g.ops[before:]:
        assert op.name.startswith("grad/net/tanh/Tanh/")
        assert op.source == "net.prototxt:3:1"


def test_a_rule_learns_which_inputs_are_wanted() -> None:
    g = double()
    x, w = g.input("x", X.shape), g.input("w", X.shape)
    y = g.div(x, w)
    op = g.ops[-1]
    assert key_of(op) == "Div"
    assert len(rule_of(op)(g, Call(op, (True, False)), y)) == 2
    assert rule_of(op)(g, Call(op, (True, False)), y)[1] is None
