"""What follows a Filter gives what it gives for the kept items alone, or is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from gradcheck import Array, Program, Traced, reference, relative_error
from layer_programs import case_model, case_program, layer_cases
from tables.cases import LayerCase

from kdnet.errors import LayerError
from kdnet.graph import Emitter, Tensor
from kdnet.layers import Layer, Trace, layer_class
from kdnet.layers.behind_filters import BY_ITEM, COUNTING, FIRST_ALONE, pass_on, receive
from kdnet.layers.kept import Kept

GONE = 1


def by_item(case: LayerCase) -> list[int]:
    """The bottoms that hold an item of the batch in each row."""
    layer_type = case.id.split("/")[0]
    first_alone = FIRST_ALONE.get(layer_type, len(case.bottoms))
    paired = "axis: 0" in case.prototxt and layer_type in ("Bias", "Scale")
    return [i for i in range(len(case.bottoms)) if i < first_alone or paired]


def candidates() -> list[LayerCase]:
    """The rows of the types that may follow, with a batch that can lose an item."""
    found = []
    for case in layer_cases():
        if case.id.split("/")[0] in BY_ITEM | COUNTING and case.tops:
            rows = {case.bottoms[i][:1] for i in by_item(case)}
            if len(rows) == 1 and (min(rows) or (0,))[0] > GONE:
                found.append(case)
    return found


def behind(case: LayerCase, given: Mapping[str, Tensor], g: Emitter) -> tuple[Layer, tuple]:
    """The layer of a row behind a Filter of which "count" items are left."""
    model, trace = case_model(case), Trace()
    bottoms = [given[name] for name in model.bottoms]
    if "count" in given:
        kept = Kept(given["count"], given["count"], case.bottoms[0][0])
        trace.kept = {model.bottoms[i]: kept for i in by_item(case)}
    layer = layer_class(model)(model, trace)
    layer.check(*bottoms)
    receive(layer, bottoms)
    weights = [given[f"weight{i}"] for i in range(len(layer.weights(*bottoms)))]
    with g.scope("layer"):
        tops = layer.emit(g, *bottoms, *weights)
    tops = tops if isinstance(tops, tuple) else (tops,)
    pass_on(layer, bottoms, tops)
    return layer, tops


def refused(case: LayerCase) -> bool:
    """Whether the row's parameters mix items."""
    g = Emitter(np.float64)
    shapes = {f"bottom{i}": shape for i, shape in enumerate(case.bottoms)}
    given = {name: g.input(name, shape) for name, shape in {**shapes, "count": ()}.items()}
    layer = layer_class(case_model(case))(case_model(case), Trace())
    declared = layer.weights(*[given[name] for name in shapes])
    given |= {f"weight{i}": g.input(f"weight{i}", one.shape) for i, one in enumerate(declared)}
    try:
        behind(case, given, g)
    except LayerError as error:
        codes = {fault.code for fault in error.diagnostics}
        return codes == {"filtered-batch"}
    return False


CASES = {case.id: case for case in candidates()}
FOLLOWING = [case_id for case_id, case in CASES.items() if not refused(case)]


class Run:
    """A row's layer behind a Filter, or on a batch of the kept items alone."""

    def __init__(self, case: LayerCase, arrays: Mapping[str, Array]) -> None:
        self.arrays = dict(arrays)
        self.with_items = {f"d/bottom{i}" for i in by_item(case)}

        def build(g: Emitter, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            layer, tops = behind(case, given, g)
            held = enumerate(layer.model.tops)
            self.with_items |= {f"top{i}" for i, name in held if name in layer.trace.kept}
            return {f"top{i}": top for i, top in enumerate(tops)}

        tops = tuple(f"top{i}" for i in range(case.tops))
        self.traced = Traced(Program(build, self.arrays, gradient_of=tops))
        found = self.traced.with_gradients(case_program(case).wrt).items()
        self.outputs = self.traced.outputs | {f"d/{name}": tensor for name, tensor in found}

    def seeds(self, count: int) -> dict[str, Array]:
        """A gradient for each top, 0 for what is not there: a loss sees to that."""
        found = {}
        for name, tensor in self.traced.float_outputs().items():
            found[name] = np.random.default_rng(1).standard_normal(tensor.shape)
            if name in self.with_items:
                found[name][count:] = 0
        return found

    def values(self, seeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {f"seed/{name}": seed for name, seed in seeds.items()}
        return reference(self.traced.model(self.outputs))({**self.arrays, **given})


def test_every_type_that_may_follow_has_a_row_that_does() -> None:
    without_tops = {"Silence"}
    rows = {case_id.split("/")[0] for case_id in FOLLOWING}
    assert rows == (BY_ITEM | COUNTING) - without_tops


@pytest.mark.parametrize("case_id", sorted(set(CASES) - set(FOLLOWING)))
def test_rows_that_mix_items_say_so(case_id: str) -> None:
    text = CASES[case_id].prototxt
    marks = ("axis", "BatchNorm", "slice_dim", "concat_dim", "Reduction", "shape", "order")
    assert any(mark in text for mark in marks), text


@pytest.mark.parametrize("case_id", FOLLOWING)
def test_a_layer_gives_what_it_gives_for_the_kept_items_alone(case_id: str) -> None:
    case = CASES[case_id]
    arrays = dict(case_program(case).arrays)
    items = case.bottoms[0][0]
    count = items - GONE
    cut = {f"bottom{i}" for i in by_item(case)} | {"noise/layer"}
    alone = {name: a[:count] if name in cut else a for name, a in arrays.items()}
    for i in by_item(case):
        arrays[f"bottom{i}"] = np.concatenate([alone[f"bottom{i}"], alone[f"bottom{i}"][:GONE]])
    behind_filter = Run(case, {**arrays, "count": np.array(float(count))})
    seeds = behind_filter.seeds(count)
    few = {n: s[:count] if n in behind_filter.with_items else s for n, s in seeds.items()}
    with np.errstate(divide="ignore"):
        found, expected = behind_filter.values(seeds), Run(case, alone).values(few)
    assert list(found) == list(expected)
    for name, value in expected.items():
        items_of = found[name][:count] if name in behind_filter.with_items else found[name]
        assert relative_error(items_of, value) <= 1e-12, name
    for name in behind_filter.with_items & set(found):
        if name.startswith("d/"):
            assert not found[name][count:].any(), name
