"""Every shipped net and join reads, compiles in both phases, and takes a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from kdnet.compile import compile_evaluation
from kdnet.compile.program import LOSS, Report
from kdnet.layers import layer_types
from kdnet.layers.registry import class_of_type
from kdnet.runtime import Device, Stepper
from kdnet.runtime.rate import scheduled_at
from kdnet.schema import kdnet_pb2 as pb
from tests.all_nets import (
    IDS,
    JOINS,
    NETS,
    ROOT,
    compiled,
    feeds_of,
    first_values,
    id_of,
    resolved,
)

# A step of these needs gigabytes and minutes on two cores; on a GPU all nets step.
TOO_LARGE = ("vgg16",)


@pytest.mark.parametrize("net", NETS, ids=IDS)
def test_compiles_for_both_providers(net: Path) -> None:
    for provider in ("cpu", "cuda"):
        model = compiled(net, provider=provider).main.model
        assert model.opset_import[0].version <= 21
        assert model.ir_version <= 10
        assert {node.domain for node in model.graph.node} == {""}
        frozen = [
            i.name for i in model.graph.initializer if "teacher" in i.name or "_t_" in i.name
        ]
        grads = [node.name for node in model.graph.node if node.name.startswith("grad/")]
        assert not [
            name for name in grads if any(f"grad/{f.rpartition('/')[0]}/" in name for f in frozen)
        ]


@pytest.mark.parametrize("net", NETS, ids=IDS)
def test_the_test_phase_compiles(net: Path) -> None:
    evaluation = compile_evaluation(resolved(net, pb.TEST))
    onnx.checker.check_model(_without_external(evaluation.program.model))
    assert evaluation.program.reports


def _without_external(model: onnx.ModelProto) -> onnx.ModelProto:
    """Frozen weights as inputs, since the checker looks for external files."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = []
    for tensor in copy.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            copy.graph.input.append(info)
        else:
            kept.append(tensor)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


@pytest.mark.parametrize("net", NETS, ids=IDS)
def test_takes_a_step(net: Path) -> None:
    if any(word in net.stem for word in TOO_LARGE):
        pytest.skip(f"{net.stem} steps on a GPU only: make gpu")
    training = compiled(net, batch=2)
    stepper = Stepper(training, Device("cpu"), first_values(training))
    before = stepper.weights()
    values = stepper.step(1e-4, lambda micro: feeds_of(training, micro))
    after = stepper.weights()
    assert np.isfinite(values[LOSS])
    for slot in training.weights:
        same = np.array_equal(before[slot.name], after[slot.name])
        assert same == (slot.role == "frozen"), slot.name


@pytest.mark.parametrize("net", JOINS, ids=map(id_of, JOINS))
def test_a_join_takes_a_step(net: Path) -> None:
    training = compiled(net, batch=4)
    # A blob that no loss reads would be computed to be printed, an array of it at every display.
    assert not [report.blob for report in training.main.reports if not _weighs(report)]
    stepper = Stepper(training, Device("cpu"), first_values(training))
    before = stepper.weights()
    values = stepper.step(
        1e-4, lambda micro: feeds_of(training, micro), scheduled_at(training.schedules, 0)
    )
    after = stepper.weights()
    assert np.isfinite(values[LOSS])
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    frozen = {slot.name for slot in training.weights if slot.role == "frozen"}
    assert moved
    assert not moved & frozen
    assert all(np.isfinite(after[name]).all() for name in moved)


def _weighs(report: Report) -> bool:
    return bool(report.loss_weight or report.scheduled)


@pytest.mark.parametrize("net", JOINS, ids=map(id_of, JOINS))
def test_the_test_phase_of_a_join_tells_how_good_its_student_is(net: Path) -> None:
    reports = compile_evaluation(resolved(net, pb.TEST)).program.reports
    assert any("accuracy" in report.blob for report in reports)


def test_the_table_of_nets_names_every_net() -> None:
    table = (ROOT / "nets" / "README.md").read_text()
    missing = [id_of(net) for net in (*NETS, *JOINS) if f"`{net.stem}`" not in table]
    assert not missing


def test_every_loss_of_a_student_is_in_some_net() -> None:
    nets = [resolved(net, pb.TRAIN) for net in (*NETS, *JOINS)]
    shown = {layer.type for net in nets for layer in net.layers}
    kinds = {name: class_of_type(name) for name in layer_types()}
    # Those of forks are there for the nets of forks.
    own = {name: kind for name, kind in kinds.items() if ".forks." not in kind.__module__}
    wanted = {n for n, kind in own.items() if any("student" in role for role in kind.roles)}
    assert len(wanted) > 20
    assert not wanted - shown
