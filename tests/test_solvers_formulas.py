"""Update rules on gradients as given: against the papers' formulas, and AdamW against PyTorch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tables.solvers import CASES, SolverCase

from kdnet.errors import NetError
from kdnet.graph import Emitter, to_model
from kdnet.net import SolverModel
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import Inputs, Leaf, apply_chain, numbers_of, solver_names, transforms_of

TORCH = Path(__file__).parent / "golden" / "torch_solvers.npz"
FIELDS = ("momentum", "momentum2", "rms_decay", "delta", "weight_decay")
Array = np.ndarray


def solver(type_: str, fields: str) -> SolverModel:
    message = text_format.Parse(f'type: "{type_}" {fields}', pb.SolverParameter())
    return SolverModel(message, SourceMap.empty())


class Chain:
    """A solver's chain on bare weights, run by ONNX Runtime."""

    def __init__(
        self, model: SolverModel, start: list[Array], multipliers: list[tuple[float, float]]
    ) -> None:
        g, chain = Emitter(), transforms_of(model)
        self._numbers = numbers_of(chain)
        self.weights = [w.astype(np.float32) for w in start]
        tensors = [g.input(f"w{i}", w.shape) for i, w in enumerate(start)]
        slopes = [g.input(f"g{i}", w.shape) for i, w in enumerate(start)]
        past = {
            slot: [g.input(f"{slot}{i}", w.shape) for i, w in enumerate(start)]
            for transform in chain
            for slot in transform.slots
        }
        given = {item.field: g.input(item.field, ()) for item in self._numbers}
        rate = g.input("rate", ())
        leaves = [Leaf(t, *pair) for t, pair in zip(tensors, multipliers, strict=True)]
        new, kept = apply_chain(g, chain, leaves, slopes, Inputs(rate, past, given))
        outputs = {f"w{i}": tensor for i, tensor in enumerate(new)}
        outputs |= {f"{slot}{i}": t for slot, ts in kept.items() for i, t in enumerate(ts)}
        every = {f"next/{name}": tensor for name, tensor in outputs.items()}
        inputs = [*tensors, *slopes, *(t for ts in past.values() for t in ts), *given.values()]
        model_proto = to_model(g.ops, [*inputs, rate], every, name="rule", initializers={})
        self._session = onnxruntime.InferenceSession(
            model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self._state = {t.name: np.zeros(t.shape, np.float32) for ts in past.values() for t in ts}

    def step(self, iteration: int, rate: float, slopes: list[Array]) -> list[Array]:
        feeds = {f"w{i}": w for i, w in enumerate(self.weights)} | self._state
        feeds |= {f"g{i}": slope.astype(np.float32) for i, slope in enumerate(slopes)}
        numbers = {item.field: item.value(iteration) for item in self._numbers} | {"rate": rate}
        feeds |= {name: np.array(value, np.float32) for name, value in numbers.items()}
        names = [output.name for output in self._session.get_outputs()]
        wanted = {name.name for name in self._session.get_inputs()}
        found = self._session.run(names, {k: v for k, v in feeds.items() if k in wanted})
        state = {n.removeprefix("next/"): v for n, v in zip(names, found, strict=True)}
        self.weights = [state.pop(f"w{i}") for i in range(len(self.weights))]
        self._state = state
        return self.weights


def streams(shapes: list[tuple[int, ...]], steps: int) -> tuple[list[Array], list[list[Array]]]:
    rng = np.random.default_rng(3)
    start = [rng.standard_normal(shape) for shape in shapes]
    return start, [[rng.standard_normal(shape) for shape in shapes] for _ in range(steps)]


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_ten_steps_follow_the_formula(case: SolverCase) -> None:
    model = solver(case.type, case.fields)
    fields = SimpleNamespace(**{name: getattr(model.message, name) for name in FIELDS})
    start, slopes = streams([(4, 3), (3,)], 10)
    start[1][:] = 0
    multipliers = [(1.0, 1.0), (2.0, 0.0)]
    chain = Chain(model, start, multipliers)
    wanted = [w.copy() for w in start]
    for iteration in range(10):
        found = chain.step(iteration, 0.05, slopes[iteration])
        for index, (lr_mult, decay_mult) in enumerate(multipliers):
            own = SimpleNamespace(**vars(fields))
            own.weight_decay *= decay_mult
            past = [step[index] for step in slopes[: iteration + 1]]
            wanted[index] = case.oracle(own, 0.05 * lr_mult, wanted[index], past)
            np.testing.assert_allclose(found[index], wanted[index], rtol=2e-5, atol=2e-6)


def test_every_solver_has_a_row() -> None:
    assert {case.type for case in CASES} == set(solver_names())


with np.load(TORCH) as file:
    GOLDEN = {name: file[name] for name in file.files}


@pytest.mark.parametrize("case", sorted({n.split("/")[0] for n in GOLDEN if n.endswith("fields")}))
def test_adamw_is_that_of_pytorch(case: str) -> None:
    model = solver("AdamW", str(GOLDEN[f"{case}/fields"]))
    pairs = list(zip(GOLDEN["lr_mult"].tolist(), GOLDEN["decay_mult"].tolist(), strict=True))
    chain = Chain(model, [GOLDEN["start/0"], GOLDEN["start/1"]], pairs)
    for iteration, rate in enumerate(GOLDEN["rates"]):
        found = chain.step(iteration, rate, [GOLDEN[f"slopes/{i}"][iteration] for i in range(2)])
        for index, weight in enumerate(found):
            wanted = GOLDEN[f"{case}/weights/{index}"][iteration]
            np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-6)


def test_decay_of_adam_is_part_of_the_gradient_and_that_of_adamw_is_not() -> None:
    still = [np.zeros((2,))]
    for type_, share in (("Adam", None), ("AdamW", 0.1 * 0.5)):
        chain = Chain(solver(type_, "momentum: 0.9 weight_decay: 0.5"), [np.ones(2)], [(1, 1)])
        (found,) = chain.step(0, 0.1, still)
        wanted = 1 - share if share else 1 - 0.1
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def refused(type_: str, fields: str) -> str:
    with pytest.raises(NetError) as caught:
        transforms_of(solver(type_, fields))
    return str(caught.value)


@pytest.mark.parametrize("type_", ["AdaGrad", "RMSProp"])
def test_no_momentum_where_caffe_allows_none(type_: str) -> None:
    assert refused(type_, "momentum: 0.9") == (
        f"error: {type_} has no momentum [bad-solver-field]\n"
        'help: take momentum out, or choose type "Adam"'
    )


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        ("RMSProp", "rms_decay"),
        ("Adam", "momentum"),
        ("AdamW", "momentum2"),
        ("LAMB", "momentum"),
    ],
)
@pytest.mark.parametrize("value", ["1", "-0.5"])
def test_a_share_lies_between_0_and_1(type_: str, name: str, value: str) -> None:
    assert refused(type_, f"{name}: {value}") == (
        f"error: {name} of {type_} lies from 0 up to, but not at 1; it is {value} "
        "[bad-solver-field]"
    )
