"""Every layer against Caffe itself: tops and every gradient, in float32 on ONNX Runtime."""

from __future__ import annotations

import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gradcheck import Program, Traced, onnxruntime_run
from layer_programs import declared_weights, emitted, layer_cases, model_of

from kdnet.layers import DataLayer, layer_types
from kdnet.layers.registry import class_of_type
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

GOLDEN = Path(__file__).parent / "golden" / "caffe" / "layers"
RELATIVE = 1e-4
ABSOLUTE = 2e-7

# Its tops hold the items that Caffe's have, then others.
LONGER = "Filter/"
# Younger than the Caffe that made the numbers.
YOUNGER = {"Clip"}
# Its code is the user's; test_python_layers.py has a net of it.
USERS_OWN = {"Python"}
# It has no top; test_hdf5_output.py reads its file.
TO_FILES = {"HDF5Output"}


@cache
def names_in(path: Path) -> tuple[str, ...]:
    with zipfile.ZipFile(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist())


def case_ids() -> list[str]:
    files = sorted(GOLDEN.glob("*.npz"))
    found = {f"{path.stem}/{name.split('/')[0]}" for path in files for name in names_in(path)}
    return sorted(found)


class Golden:
    """One case: its layer and its numbers by name."""

    def __init__(self, case_id: str) -> None:
        type_name, case = case_id.split("/")
        path = GOLDEN / f"{type_name}.npz"
        with np.load(path) as archive:
            keys = [key for key in names_in(path) if key.startswith(f"{case}/")]
            self.arrays = {key.removeprefix(f"{case}/"): archive[key] for key in keys}
        located = read_text(str(self.arrays["prototxt"]), case_id, pb.NetParameter)
        self.model: LayerModel = model_of(
            located.message.layer[0], located.source.at(("layer", 0)), str(self.arrays["phase"])
        )

    def numbered(self, prefix: str) -> dict[int, np.ndarray]:
        """The arrays named ``prefix`` and a number, by number."""
        ends = {name: name.removeprefix(prefix) for name in self.arrays if name.startswith(prefix)}
        found = {int(end): self.arrays[name] for name, end in ends.items() if end.isdigit()}
        return dict(sorted(found.items()))

    def program(self) -> Program:
        bottoms = self.numbered("bottom")
        weights = declared_weights(self.model, [array.shape for array in bottoms.values()])
        params = self.numbered("param")
        assert [weight.shape for weight in weights] == [array.shape for array in params.values()]
        arrays = {f"bottom{i}": array for i, array in bottoms.items()}
        arrays |= {f"weight{i}": array for i, array in params.items()}
        wrt = [f"bottom{i}" for i in self.numbered("bottomdiff")]
        wrt += [f"weight{i}" for i in self.numbered("paramdiff")]
        return Program(
            build=lambda g, given: emitted(g, self.model, given).outputs(),
            arrays=arrays,
            wrt=tuple(wrt),
            gradient_of=tuple(f"top{i}" for i in self.numbered("topdiff")),
        )

    def expected(self) -> dict[str, np.ndarray]:
        """Tops and gradients, under the names of the program's outputs."""
        tops = {f"top{i}": array for i, array in self.numbered("top").items()}
        bottoms = {f"d/bottom{i}": array for i, array in self.numbered("bottomdiff").items()}
        weights = {f"d/weight{i}": array for i, array in self.numbered("paramdiff").items()}
        return tops | bottoms | weights


def computed(golden: Golden) -> dict[str, np.ndarray]:
    program = golden.program()
    traced = Traced(program, np.float32)
    gradients = traced.with_gradients(program.wrt if program.gradient_of else ())
    outputs = traced.outputs | {f"d/{name}": tensor for name, tensor in gradients.items()}
    if not outputs:
        return {}
    seeds = {}
    for i, array in golden.numbered("topdiff").items():
        shape = traced.outputs[f"top{i}"].shape
        seeds[f"seed/top{i}"] = np.zeros(shape, np.float32)
        seeds[f"seed/top{i}"][slice(len(array)) if shape else ...] = array
    return onnxruntime_run(traced.model(outputs), {**program.arrays, **seeds})


@pytest.mark.parametrize("case_id", case_ids())
def test_tops_and_gradients_are_caffe_s(case_id: str) -> None:
    golden = Golden(case_id)
    found = computed(golden)
    for name, expected in golden.expected().items():
        value = found.get(name)
        if value is None:
            assert not expected.any(), f"{name}: no gradient, but Caffe's is not zero"
            continue
        if case_id.startswith(LONGER) and name.startswith("top"):
            value = value[: len(expected)]
        assert value.shape == expected.shape, name
        allowed = RELATIVE * np.max(np.abs(expected), initial=0) + ABSOLUTE
        assert np.max(np.abs(value - expected), initial=0) <= allowed, name


def own_types() -> set[str]:
    """The types that say of themselves that Caffe has none of them."""
    said = "Differs from Caffe: the layer is kdnet's own"
    return {name for name in layer_types() if said in (class_of_type(name).__doc__ or "")}


def data_types() -> set[str]:
    """The types whose tops are data or random numbers."""
    return {name for name in layer_types() if issubclass(class_of_type(name), DataLayer)}


def fork_types() -> set[str]:
    """The types of forks of Caffe, which tests/golden/forks has numbers of."""
    return {name for name in layer_types() if ".forks." in class_of_type(name).__module__}


def test_types_without_golden_numbers_are_the_listed_ones() -> None:
    types = {path.stem for path in GOLDEN.glob("*.npz")}
    assert types <= set(layer_types())
    unnumbered = own_types() | fork_types() | data_types() | YOUNGER | USERS_OWN | TO_FILES
    assert set(layer_types()) - types == unnumbered - types


def test_every_type_with_golden_numbers_has_a_row_of_its_own() -> None:
    rows = {case.id.split("/")[0] for case in layer_cases()}
    assert {path.stem for path in GOLDEN.glob("*.npz")} <= rows
