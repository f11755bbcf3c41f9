"""Training a student by its features: whole steps, on one device, in float32."""

from __future__ import annotations

import numpy as np
import pytest

from kdnet.compile import Training, compile_training
from kdnet.compile.program import LOSS
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text
from kdnet.weights import fill, philox

NET = """
layer { name: "in" type: "DummyData" top: "x" dummy_data_param {
  shape { dim: 8 dim: 2 dim: 8 dim: 8 } } }
layer { name: "teacher" type: "Convolution" bottom: "x" top: "t" param { lr_mult: 0 }
  param { lr_mult: 0 } convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "teacher_relu" type: "ReLU" bottom: "t" top: "t" }
layer { name: "student" type: "Convolution" bottom: "x" top: "s"
  convolution_param { num_output: 3 kernel_size: 3 stride: 2 } }
layer { name: "student_relu" type: "ReLU" bottom: "s" top: "s" }
"""
LOSS_LAYER = """
layer { name: "loss" type: "%s" bottom: "s" bottom: "t" top: "loss" %s }
"""
PROJECTOR = "hint_param { projector { batch_norm: true relu: true } }"
LOSSES = {
    "AttentionTransfer": 100.0,
    "CorrelationCongruence": 0.001,
    "CosineDistance": 1.0,
    "Hint": 0.5,
    "L2Distance": 0.002,
    "NeuronSelectivity": 20.0,
    "ProbabilisticKnowledgeTransfer": 500.0,
    "RelationalAngle": 5.0,
    "RelationalDistance": 1.0,
    "SimilarityPreserving": 50.0,
    "VariationalInformation": 5.0,
}


def training(net: str) -> Training:
    located = read_text(net, "net.prototxt", pb.NetParameter)
    model = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    rules = read_text("base_lr: 1", "solver.prototxt", pb.SolverParameter)
    return compile_training(model, SolverModel(rules.message, rules.source))


def first_values(compiled: Training) -> dict[str, np.ndarray]:
    """As the fillers say, and both nets' own by xavier."""
    xavier = pb.FillerParameter(type="xavier")
    return {
        slot.name: fill(
            xavier if slot.name.endswith(("student/weight", "teacher/weight")) else slot.filler,
            slot.shape,
            seed=4,
            key=slot.name,
        )
        for slot in compiled.weights
    }


def steps(compiled: Training, count: int, rate: float = 1.0) -> tuple[Stepper, list[float]]:
    batch = {"x": philox(9, "batch").random((8, 2, 8, 8), np.float32) * 2 - 1}
    stepper = Stepper(compiled, Device("cpu"), first_values(compiled))
    return stepper, [float(stepper.step(rate, lambda _: batch)[LOSS]) for _ in range(count)]


@pytest.mark.parametrize("type_name", LOSSES)
def test_a_student_comes_nearer_and_the_teacher_stays(type_name: str) -> None:
    compiled = training(NET + LOSS_LAYER % (type_name, ""))
    before = first_values(compiled)
    stepper, losses = steps(compiled, 25, LOSSES[type_name])
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.05 * abs(losses[0])
    after = stepper.weights()
    for name, value in before.items():
        stays = name.startswith("teacher/")
        assert np.array_equal(after[name], value) == stays, name


def test_a_projector_is_trained_under_the_layer_s_own_multipliers() -> None:
    held = "param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }"
    compiled = training(NET + LOSS_LAYER % ("Hint", f"{PROJECTOR} {held}"))
    roles = {slot.name: slot.role for slot in compiled.weights if slot.name.startswith("loss/")}
    assert roles == {
        "loss/projector/weight": "frozen",
        "loss/projector/bias": "frozen",
        "loss/projector/scale": "frozen",
        "loss/projector/shift": "trained",
    }
    before = first_values(compiled)
    stepper, losses = steps(compiled, 20, 0.5)
    assert losses[-1] < losses[0]
    after = stepper.weights()
    changed = {name for name in roles if not np.array_equal(after[name], before[name])}
    assert changed == {"loss/projector/shift"}


def test_a_loss_may_be_looked_at_in_test_phase() -> None:
    net = NET + LOSS_LAYER % ("Hint", f"{PROJECTOR} phase: TEST")
    assert (
        steps(training(net), 2)[1][0] == steps(training(net.replace("phase: TEST", "")), 1)[1][0]
    )


def test_flow_between_two_layers_is_learned() -> None:
    both = "".join(
        f'layer {{ name: "{net}2" type: "Convolution" bottom: "{net[0]}" top: "{net[0]}2" {held} '
        f"convolution_param {{ num_output: 4 kernel_size: 2 stride: 2 "
        'weight_filler { type: "xavier" } } }\n'
        for net, held in (("student", ""), ("teacher", "param { lr_mult: 0 } " * 2))
    )
    net = NET.replace("num_output: 3", "num_output: 6") + both
    net += (
        'layer { name: "loss" type: "FlowMatrix" bottom: "s" bottom: "s2" bottom: "t" '
        'bottom: "t2" top: "loss" }'
    )
    stepper, losses = steps(training(net), 25, 2.0)
    assert losses[-1] < 0.5 * losses[0]
    assert "teacher2/weight" in stepper.weights()
