"""Every shipped net reads, compiles in both phases, and takes a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from kdnet.compile import compile_evaluation
from kdnet.compile.program import LOSS
from kdnet.net import NetState, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net
from tests.all_nets import IDS, NETS, compiled, feeds_of, first_values

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
    located = read_net(str(net))
    model = resolve_net(located.message, located.source, NetState(pb.TEST))
    evaluation = compile_evaluation(model)
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
