"""Every gradient rule: forward and backward against differences, the standard and ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracles
import pytest
from gradcheck import Check, Program, Traced
from tables.cases import OpCase, draw, tied
from tables.op_rules import CASES, REFUSED
from tables.op_rules_vision import POOLS

from kdnet.autodiff import Call, policy, registry, rule_names, vjp
from kdnet.autodiff.windows import Window
from kdnet.errors import GraphError
from kdnet.graph import Emitter, Op

SAME = {"pads": [1, 1, 1, 1]}
# provider, shapes of x and w, attributes: lowerings of the weight's and of the input's gradient
CHOICES = [
    ("cpu", (64, 1, 28, 28), (20, 1, 5, 5), {}, ("columns", "transposed")),
    ("cpu", (64, 20, 12, 12), (50, 20, 5, 5), {}, ("channels-last", "transposed")),
    ("cpu", (32, 64, 28, 28), (64, 64, 3, 3), SAME, ("channels-last", "flipped")),
    ("cpu", (32, 64, 28, 28), (64, 1, 3, 3), {**SAME, "group": 64}, ("columns", "transposed")),
    ("cpu", (32, 64, 28, 28), (64, 64, 1, 1), {}, ("columns", "flipped")),
    ("cpu", (8, 512, 7, 7), (2048, 512, 1, 1), {}, ("columns-folded", "flipped")),
    ("cpu", (8, 9, 28, 28), (9, 9, 3, 3), {"dilations": [2, 2]}, ("columns", "transposed")),
    ("cpu", (100, 32, 8, 8), (64, 32, 3, 3), SAME, ("channels-last", "transposed")),
    ("cuda", (64, 3, 28, 28), (64, 3, 3, 3), SAME, ("columns-folded", "transposed")),
    ("cuda", (64, 64, 28, 28), (64, 64, 3, 3), SAME, ("shifts-folded", "transposed")),
    ("cuda", (4, 64, 9, 9), (64, 64, 3, 3), {"strides": [2, 2]}, ("columns-folded", "transposed")),
]
# Rules of ops that are marked with them. The statistics of Standardize must belong to its input.
CHECKED_ELSEWHERE = {
    "SigmoidOfStep": "test_recurrent_steps.py",
    "Standardize": "test_normalization_rules.py",
    "TanhOfStep": "test_recurrent_steps.py",
}


def program(case: OpCase) -> Program:
    """The op alone, on numbers from its domain."""
    rng = np.random.default_rng(sum(map(ord, case.id)))
    arrays = {
        f"x{index}": draw(case.domain, index, rng, shape)
        for index, shape in enumerate(case.shapes)
        if isinstance(shape, tuple)
    }

    def build(g, inputs):
        given = [_input(g, shape, inputs.get(f"x{i}")) for i, shape in enumerate(case.shapes)]
        outputs = g.multi(case.op, *given, count=case.outputs, **case.attrs)
        return {f"y{index}": output for index, output in enumerate(outputs)}

    wrt = tuple(f"x{index}" for index in case.wrt)
    return Program(build, arrays, wrt, case.provider, gradient_of=case.gradient_of)


def _input(g, shape, tensor):
    if isinstance(shape, list):
        return g.ints(*shape)
    return g.constant(shape) if isinstance(shape, float) else tensor


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def check(request, monkeypatch):
    for function, name in request.param.lowerings.items():
        assert hasattr(policy, function)
        monkeypatch.setattr(policy, function, lambda *_shapes, name=name: name)
    return Check(program(request.param), request.param.tol, request.param.ort_tol)


def test_rule(check):
    check.all()


def test_every_rule_has_a_row():
    tested = {case.op for case in CASES}
    assert set(rule_names()) == tested | set(CHECKED_ELSEWHERE)
    for rule, file in CHECKED_ELSEWHERE.items():
        assert rule in (Path(__file__).parent / file).read_text()


def test_ids_are_unique_and_sorted():
    ids = [case.id for case in CASES]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("name", POOLS)
def test_a_maximum_held_twice_passes_its_gradient_to_the_first(name, provider):
    shape, attrs = POOLS[name]
    x = tied(np.random.default_rng(7), shape)
    program = Program(
        lambda g, given: {"y": g.op("MaxPool", given["x"], **attrs)}, {"x": x}, ("x",), provider
    )
    check = Check(program)
    pads = attrs.get("pads", [0] * 2 * len(shape[2:]))
    expected = oracles.max_pool_gradient(
        x,
        check.seeds["seed/y"],
        attrs["kernel_shape"],
        attrs.get("strides", [1] * len(shape[2:])),
        pads[: len(shape[2:])],
    )
    np.testing.assert_allclose(check.gradient("x"), expected, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_cuda_gets_no_op_that_only_the_cpu_has(case):
    traced = Traced(replace(program(case), provider="cuda"))
    traced.with_gradients(traced.program.wrt)
    for op in traced.g.ops[traced.forward_count :]:
        pads = list(op.attrs.get("pads", []))
        equal = pads[: len(pads) // 2] == pads[len(pads) // 2 :]
        assert op.type not in {"Col2Im", "MaxUnpool"}
        assert equal or op.type != "ConvTranspose", f"{op.name}: unequal pads"
        assert len(op.outputs) == 1 or op.type != "MaxPool", f"{op.name}: Indices"


@pytest.mark.parametrize(("provider", "x", "w", "attrs", "names"), CHOICES)
def test_the_policy_chooses(provider, x, w, attrs, names):
    g = Emitter(provider=provider)
    image, weight = g.input("x", x), g.input("w", w)
    y = g.op("Conv", image, weight, **attrs)
    window = Window.of(image, y, w[2:], attrs)
    groups = attrs.get("group", 1)
    assert names == (
        policy.conv_weight_gradient(provider, window, x, y.shape, groups),
        policy.conv_input_gradient(provider, window, w[1], groups),
    )


def test_a_tie_of_two_tensors_goes_to_the_first():
    def build(g, given):
        return {"y": g.maximum(given["a"], given["b"]), "z": g.minimum(given["a"], given["b"])}

    same = np.array([1.0, 2.0])
    check = Check(Program(build, {"a": same, "b": same}, ("a", "b")))
    total = check.seeds["seed/y"] + check.seeds["seed/z"]
    np.testing.assert_allclose(check.gradient("a"), total)
    np.testing.assert_array_equal(check.gradient("b"), 0)


@pytest.mark.parametrize(("op", "shapes", "attrs", "text"), REFUSED)
def test_what_has_no_gradient_is_said(op, shapes, attrs, text):
    alone = program(OpCase("refused", op, shapes, attrs))
    with pytest.raises(GraphError) as caught:
        Traced(alone).with_gradients(tuple(alone.arrays))
    (fault,) = caught.value.diagnostics
    assert fault.code == "unsupported-gradient"
    assert fault.message == f"no gradient of {op} {text}, at {op}"


@pytest.mark.parametrize("scale", [1.5, 2.2])
def test_a_scale_that_makes_no_whole_number_of_places_is_taken_as_given(scale):
    def build(g, given):
        scales = g.constant([1, 1, scale], np.float32)
        return {"y": g.op("Resize", given["x"], None, scales, mode="linear")}

    x = np.random.default_rng(0).standard_normal((1, 2, 7))
    check = Check(Program(build, {"x": x}, ("x",)))
    check.finite_differences()
    check.float32()


def test_a_computed_scale_is_said():
    g = Emitter()
    x, scales = g.input("x", (2, 3)), g.input("scales", (2,), np.float32)
    op = Op("Resize", "wide", (x, None, scales), (g.input("y", (2, 6)),), {}, "net:1:2")
    with pytest.raises(GraphError, match=r"with computed scales, at wide \(net:1:2\)"):
        registry.rule_of(op)(g, Call(op, (True, False, False)), op.output)


def test_the_statistics_of_a_layer_normalization_have_no_gradient():
    alone = program(OpCase("statistics", "LayerNormalization", [(2, 3), (3,)], outputs=3))
    with pytest.raises(GraphError, match="no gradient of LayerNormalization by its statistics"):
        Traced(alone).with_gradients(("x0",))


def test_an_op_without_a_rule_is_said():
    with pytest.raises(GraphError) as caught:
        Traced(program(OpCase("no-rule", "Det", [(2, 2)]))).with_gradients(("x0",))
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.message) == ("no-gradient-rule", "Det has no gradient rule: Det")


def test_a_computed_input_where_a_constant_is_needed_is_said():
    g = Emitter()
    x, axes = g.input("x", (2, 3)), g.input("axes", (1,), np.int64)
    op = Op("ReduceSum", "total", (x, axes), (g.input("y", (2,)),), {}, "net:1:2")
    with pytest.raises(GraphError, match=r"a computed input 1, at total \(net:1:2\)"):
        registry.rule_of(op)(g, Call(op, (True, False)), op.output)


def test_two_rules_for_an_op_are_refused():
    with pytest.raises(ValueError, match=r"two gradient rules for Relu: .*activations and "):
        vjp("Relu")(lambda *_: ())


def test_a_wrong_gradient_is_found():
    def build(g, given):
        return {"y": g.mul(given["x"], g.stop_gradient(given["x"]))}

    check = Check(Program(build, {"x": np.array([1.0, 2.0, 3.0])}, ("x",)))
    with pytest.raises(AssertionError, match="directional derivative off by"):
        check.finite_differences()


def test_a_gradient_wrong_at_one_element_is_found():
    def build(g, given):
        most = g.slice(given["x"], [0], [1], [64])
        return {"y": g.concat([g.stop_gradient(g.slice(given["x"], [0], [0], [1])), most], 0)}

    check = Check(Program(build, {"x": np.ones(64)}, ("x",)))
    with pytest.raises(AssertionError, match=r"d/dx\[0\]: rule 0, differences"):
        check._by_element("x")


def test_a_gradient_op_in_vain_is_found():
    def build(g, given):
        return {"y": g.op("LRN", given["x"], rule="Wasteful", size=1)}

    @vjp("Wasteful")
    def wasteful(g, _call, dy):
        g.neg(dy)
        return (dy,)

    try:
        check = Check(Program(build, {"x": np.ones((1, 1, 2, 2))}, ("x",)))
        with pytest.raises(AssertionError, match="in vain"):
            check.frozen()
    finally:
        registry._RULES.pop("Wasteful")
