"""Layers of Caffe's forks: their numbers, what their nets write, and their weight files."""

from __future__ import annotations

import zipfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from gradcheck import Check, Program, Traced, onnxruntime_run, reference
from layer_programs import declared_weights, emitted, layer_model

from kdnet.graph import Emitter, Tensor
from kdnet.layers import layer_types
from kdnet.layers.registry import class_of_type
from kdnet.net import LayerModel

GOLDEN = Path(__file__).parent / "golden" / "forks" / "forks.npz"
EXACT, RELATIVE = 1e-9, 1e-5

Arrays = dict[str, np.ndarray]


@cache
def golden() -> dict[str, Arrays]:
    with zipfile.ZipFile(GOLDEN) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    found: dict[str, Arrays] = {}
    with np.load(GOLDEN) as arrays:
        for name in names:
            case, _, key = name.rpartition("/")
            found.setdefault(case, {})[key] = arrays[name]
    return found


def numbered(numbers: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays named ``prefix`` and a number, by that number."""
    ends = {name: name.removeprefix(prefix) for name in numbers if name.startswith(prefix)}
    return {end: numbers[name] for name, end in ends.items() if end.isdigit()}


def build(model: LayerModel, g: Emitter, given: dict[str, Tensor]) -> dict[str, Tensor]:
    return emitted(g, model, given).outputs()


def golden_program(case: str) -> tuple[Program, Arrays, Arrays]:
    """The layer on the fork's inputs, the gradients that arrive, and what it must make of them."""
    numbers = golden()[case]
    bottoms, params = numbered(numbers, "bottom"), numbered(numbers, "param")
    tops = numbered(numbers, "top")
    model = layer_model(str(numbers["prototxt"]), str(numbers["phase"]), len(bottoms), len(tops))
    shapes = [
        weight.shape for weight in declared_weights(model, [x.shape for x in bottoms.values()])
    ]
    assert shapes == [array.shape for array in params.values()]
    arrays = {f"bottom{i}": x for i, x in bottoms.items()}
    arrays |= {f"weight{i}": x for i, x in params.items()}
    expected = {f"top{i}": x for i, x in tops.items()}
    expected |= {f"d/bottom{i}": x for i, x in numbered(numbers, "bottomdiff").items()}
    expected |= {f"d/weight{i}": x for i, x in numbered(numbers, "paramdiff").items()}
    wrt = tuple(name.removeprefix("d/") for name in expected if name.startswith("d/"))
    expected |= {f"next{int(i) - 2}": x for i, x in numbered(numbers, "next").items()}
    seeds = {f"seed/top{i}": x for i, x in numbered(numbers, "topdiff").items()}
    of_tops = tuple(f"top{i}" for i in tops)
    return Program(partial(build, model), arrays, wrt, gradient_of=of_tops), seeds, expected


def compare(results: Arrays, expected: Arrays, allowed: float) -> None:
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        error = np.max(np.abs(results[name] - value)) / np.max(np.abs(value))
        assert error <= allowed, f"{name}: off by {error:.1e}"


@pytest.mark.parametrize("case", golden())
def test_values_and_gradients_are_the_fork_s(case: str) -> None:
    program, seeds, expected = golden_program(case)
    results = reference(Check(program).model)({**program.arrays, **seeds})
    assert set(results) == set(expected)
    compare(results, expected, EXACT)


@pytest.mark.parametrize("case", golden())
def test_in_float32_they_are_the_fork_s_too(case: str) -> None:
    program, seeds, expected = golden_program(case)
    traced = Traced(program, np.float32)
    found = {f"d/{name}": t for name, t in traced.with_gradients(program.wrt).items()}
    model = traced.model(traced.outputs | found)
    compare(onnxruntime_run(model, {**program.arrays, **seeds}), expected, RELATIVE)


def test_every_layer_of_a_fork_has_its_numbers() -> None:
    forks = {name for name in layer_types() if ".forks." in class_of_type(name).__module__}
    assert forks == {case.split("/")[0] for case in golden()}


@pytest.mark.parametrize("case", ["t4", "t4_ignored", "t4_per_item"])
def test_a_distillation_loss_is_what_is_trained_by_not_what_the_fork_prints(case: str) -> None:
    program, _, _ = golden_program(f"KnowledgeDistillation/{case}")
    found = Check(program).forward()["top0"]
    printed = float(golden()[f"KnowledgeDistillation/{case}"]["printed"])
    assert float(found) == pytest.approx(4**2 * printed, rel=1e-9)
