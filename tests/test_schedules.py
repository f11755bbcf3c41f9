"""Numbers that move while a net trains: their curves, their effect, their faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_nets import JOINED as TRAIN
from small_nets import edit, ok, run

from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.schema import SourceMap, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import curve_names, schedules_of
from kdnet.weights import read_weights

NET = """
layer { name: "in" type: "DummyData" top: "x" top: "t"
        dummy_data_param { shape { dim: 2 dim: 3 } } }
layer { name: "loss" type: "TeacherStudentCrossEntropy" bottom: "x" bottom: "t" top: "loss"
        loss_weight: 0.5 teacher_student_cross_entropy_param { temperature: 4 } }
"""
CURVES = {
    'policy: "constant" value: 3': {0: 3, 100: 3},
    'policy: "piecewise" value: 1 value: 2 value: 0 at: 10 at: 20': {9: 1, 10: 2, 19: 2, 20: 0},
    'policy: "step" value: 8 gamma: 0.5 stepsize: 10': {0: 8, 9: 8, 10: 4, 30: 1},
    'policy: "step" gamma: 0.5 stepsize: 10 at: 5': {4: 0.5, 14: 0.5, 15: 0.25},
    "value: 0": {0: 0.5, 50: 0.25, 100: 0, 200: 0},
    "value: 1 value: 0 at: 10 at: 20": {0: 1, 10: 1, 15: 0.5, 20: 0, 99: 0},
    "value: 0 value: 1 value: 0 at: 0 at: 10 at: 30": {5: 0.5, 10: 1, 20: 0.5, 30: 0},
    'policy: "cosine" value: 1 value: 0': {0: 1, 25: 0.5 + 0.5**1.5, 50: 0.5, 100: 0},
}


def resolved(text: str):
    net = read_text(NET, "net.prototxt", pb.NetParameter)
    solver = pb.SolverParameter()
    read = read_text(text, "solver.prototxt", pb.SolverParameter)
    solver.CopyFrom(read.message)
    model = resolve_net(net.message, SourceMap.empty(), NetState(pb.TRAIN))
    return schedules_of(SolverModel(solver, read.source), model)


@pytest.mark.parametrize("text", CURVES)
def test_curves(text: str) -> None:
    (schedule,) = resolved(f'max_iter: 100 schedule {{ layer: "loss" {text} }}')
    found = {iteration: schedule.value(iteration) for iteration in CURVES[text]}
    assert found == pytest.approx(CURVES[text])


def test_every_policy_has_a_curve_here() -> None:
    text = " ".join(CURVES)
    for name in curve_names():
        assert name == "linear" or f'policy: "{name}"' in text


def test_a_parameter_begins_at_the_nets_own() -> None:
    (schedule,) = resolved('max_iter: 4 schedule { layer: "l*" field: "temperature" value: 2 }')
    assert [schedule.value(iteration) for iteration in range(5)] == [4, 3.5, 3, 2.5, 2]


def scheduled(folder: Path, text: str) -> None:
    edit(folder / "joined_solver.prototxt", "max_iter: 6", f"max_iter: 6 {text}")


def blobs(path: str) -> dict[str, np.ndarray]:
    return {layer.name: layer.blobs[0] for layer in read_weights(path).layers}


def test_a_constant_schedule_changes_nothing(joined: Path) -> None:
    ok(*TRAIN, "--out", "plain")
    scheduled(joined, 'schedule { layer: "loss" policy: "constant" value: 0.75 }')
    ok(*TRAIN, "--out", "moved")
    one, two = (joined / name / "run_iter_6.caffemodel" for name in ("plain", "moved"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("layer", "field", "text", "old", "new"),
    [
        ("ts_loss", "loss_weight", "0.25", "loss_weight: 0.25", "loss_weight: 2"),
        ("ts_loss", "temperature", "2", "temperature: 2", "temperature: 5"),
        ("loss", "loss_weight", "0.75", "loss_weight: 0.75", "loss_weight: 0"),
    ],
)
def test_a_change_is_that_of_an_edited_net(
    joined: Path, layer: str, field: str, text: str, old: str, new: str
) -> None:
    """The same files come out as when the net is edited between two halves of the run."""
    edit(joined / "joined_solver.prototxt", "momentum: 0.9 weight_decay: 0.001", "")
    ok(*TRAIN, "--out", "edited", "--max-iter", 4)
    plain = (joined / "joined.prototxt").read_text()
    edit(joined / "joined.prototxt", old, new)
    ok(*TRAIN, "--out", "edited", "--snapshot", "edited/run_iter_4.solverstate")
    (joined / "joined.prototxt").write_text(plain)
    value = new.split(": ")[1]
    moving = f'layer: "{layer}" field: "{field}" policy: "piecewise"'
    scheduled(joined, f"schedule {{ {moving} value: {text} value: {value} at: 4 }}")
    ok(*TRAIN, "--out", "moved")
    found, wanted = (blobs(f"{name}/run_iter_6.caffemodel") for name in ("moved", "edited"))
    for name, blob in wanted.items():
        np.testing.assert_allclose(found[name], blob, rtol=2e-6, atol=1e-7, err_msg=name)


def test_a_frozen_set_holds_still_with_its_history(joined: Path) -> None:
    ok(*TRAIN, "--out", "start", "--max-iter", 0)
    scheduled(
        joined,
        "snapshot: 3 schedule "
        '{ layer: "student/*" field: "lr_mult" policy: "piecewise" value: 0 value: 1 at: 3 }',
    )
    ok(*TRAIN, "--out", "moved")
    start, held, freed = (
        blobs(path)
        for path in (
            "start/run_iter_0.caffemodel",
            "moved/run_iter_3.caffemodel",
            "moved/run_iter_6.caffemodel",
        )
    )
    for name in ("student/ip1", "student/ip2"):
        assert np.array_equal(start[name], held[name])
        assert not np.array_equal(held[name], freed[name])


def test_a_factor_multiplies_every_lr_mult_of_the_layer(joined: Path) -> None:
    plain = (joined / "joined.prototxt").read_text()
    edit(
        joined / "joined.prototxt",
        "lr_mult: 1 } param { lr_mult: 2",
        "lr_mult: 3 } param { lr_mult: 6",
    )
    ok(*TRAIN, "--out", "edited")
    (joined / "joined.prototxt").write_text(plain)
    scheduled(joined, 'schedule { layer: "*ip1" field: "lr_mult" policy: "constant" value: 3 }')
    ok(*TRAIN, "--out", "moved")
    found, wanted = (blobs(f"{name}/run_iter_6.caffemodel") for name in ("moved", "edited"))
    for name, blob in wanted.items():
        np.testing.assert_allclose(found[name], blob, rtol=2e-6, atol=1e-7, err_msg=name)


def test_resume_goes_on_with_the_schedule(joined: Path) -> None:
    scheduled(joined, 'schedule { layer: "ts_loss" value: 3 value: 0 at: 1 at: 5 }')
    ok(*TRAIN, "--out", "straight")
    ok(*TRAIN, "--out", "broken", "--max-iter", 3)
    ok(*TRAIN, "--out", "broken", "--snapshot", "broken/run_iter_3.solverstate")
    one, two = (joined / name / "run_iter_6.caffemodel" for name in ("straight", "broken"))
    assert one.read_bytes() == two.read_bytes()


def test_the_log_tells_the_weight_of_the_moment(joined: Path) -> None:
    scheduled(joined, 'schedule { layer: "loss" value: 1 value: 0 at: 0 at: 4 }')
    ended = ok(*TRAIN)
    weights = [
        line.split("(* ")[1].split(" ")[0]
        for line in ended.log
        if ": loss = " in line and "(* " in line
    ]
    assert weights == ["1", "1", "0.5", "0.25"]
    assert "Iteration 2, loss.loss_weight = 0.5" in ended.log


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('schedule { layer: "losss" value: 1 }', "unknown-schedule-layer"),
        ('schedule { layer: "loss" policy: "lin" value: 1 }', "unknown-schedule-policy"),
        ('schedule { layer: "loss" value: 1 value: 2 value: 3 }', "bad-schedule"),
        ('schedule { layer: "loss" value: inf }', "bad-schedule"),
        ('schedule { layer: "loss" value: 1 value: 2 at: 5 at: 5 }', "bad-schedule"),
        ('schedule { layer: "loss" policy: "step" value: 1 }', "bad-schedule"),
        ('schedule { layer: "loss" policy: "piecewise" value: 1 at: 3 }', "bad-schedule"),
        (
            'schedule { layer: "loss" value: 1 } schedule { layer: "l*s" value: 1 }',
            "duplicate-schedule",
        ),
        ('schedule { layer: "loss" field: "temprature" value: 1 }', "unknown-schedule-field"),
        ('schedule { layer: "teacher/ip" field: "lr_mult" value: 1 }', "unknown-schedule-field"),
        ('schedule { layer: "ts_loss" field: "temperature" value: 0 }', "bad-parameter"),
    ],
)
def test_faults_are_named(joined: Path, text: str, code: str) -> None:
    scheduled(joined, text)
    ended = run(*TRAIN)
    assert ended.code == 1
    assert f"[{code}]" in ended.faults
    assert "joined" in ended.faults


def test_a_fault_shows_what_there_is(joined: Path) -> None:
    scheduled(joined, '\nschedule { layer: "loss" field: "lr_mult" value: 1 }\n')
    text = 'layer "loss" has no lr_mult that a schedule can move [unknown-schedule-field]'
    assert run(*TRAIN).faults == (
        f"joined_solver.prototxt:5:1: error: {text}\n"
        '  5 | schedule { layer: "loss" field: "lr_mult" value: 1 }\n'
        "    | ^~~~~~~~\n"
        "help: it has loss_weight\n"
    )
