"""``kdnet check``: each finding where it belongs, and nowhere else."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from small_nets import DATA, STUDENT, TEACHER, edit, ok, run

from kdnet.runtime.checks import check_codes

GIVEN = ("check", "joined.prototxt", "--weights", "teacher.caffemodel", "--device", "cpu")
NET = Path("joined.prototxt")


def found(*more: object) -> dict[str, list[str]]:
    """The messages by code."""
    result: dict[str, list[str]] = {}
    for item in json.loads(ok(*GIVEN, *more, "--json").out):
        result.setdefault(item["code"], []).append(item["message"])
    return result


def add(text: str) -> None:
    with NET.open("a") as file:
        file.write(text)


@pytest.fixture
def calm(joined: Path) -> Path:
    """The joined net with losses of like strength: nothing is to be found in it."""
    edit(NET, "loss_weight: 0.75", "loss_weight: 0.5")
    return joined


@pytest.mark.usefixtures("calm")
def test_a_sound_net_gives_no_warning() -> None:
    ended = ok(*GIVEN, "--strict")
    assert ended.out == ""
    assert ended.err.splitlines()[-1] == "joined.prototxt: found nothing; looked at 24 items"


@pytest.mark.usefixtures("calm")
def test_stock_distillation_is_told_its_range() -> None:
    add("""
    layer { name: "ps" type: "Softmax" bottom: "student/ip2" top: "ps" }
    layer { name: "pt" type: "Softmax" bottom: "teacher/ip" top: "pt" }
    layer { name: "st" type: "SigmoidCrossEntropyLoss" bottom: "ps" bottom: "pt" top: "st" }
    """)
    (message,) = found()["sigmoid-over-softmax"]
    low = log(1 + exp(1)) - 1 + 2 * log(2)
    assert f"between {low:.6g} and {low + 1:.6g}" in message
    # By search: no pair of one-hot or uniform vectors leaves the range, and its ends are reached.
    corners = [*np.eye(3), np.full(3, 1 / 3)]
    values = [(np.logaddexp(0, x) - x * t).sum() for x in corners for t in corners]
    assert min(values) == pytest.approx(low)
    assert max(values) == pytest.approx(low + 1)


@pytest.mark.usefixtures("calm")
def test_a_softmax_below_a_softmax_loss() -> None:
    add("""
    layer { name: "ps" type: "Softmax" bottom: "student/ip2" top: "ps" }
    layer { name: "l2" type: "SoftmaxWithLoss" bottom: "ps" bottom: "label" top: "l2" }
    """)
    (message,) = found("--batches", 0)["softmax-twice"]
    assert '"ps" comes out of a softmax' in message


@pytest.mark.usefixtures("calm")
def test_a_teacher_that_answers_with_probabilities_is_no_fault() -> None:
    add("""
    layer { name: "pt" type: "Softmax" bottom: "teacher/ip" top: "pt" }
    layer { name: "l2" type: "TeacherStudentCrossEntropy" bottom: "student/ip2" bottom: "pt"
            top: "l2" teacher_student_cross_entropy_param { teacher: PROBABILITIES } }
    """)
    assert "softmax-twice" not in found("--batches", 0)


@pytest.mark.parametrize("wrong", ["Dropout", "BatchNorm"])
@pytest.mark.usefixtures("calm")
def test_a_teacher_left_in_train_phase(wrong: str) -> None:
    layer = (
        f'layer {{ name: "teacher/x" type: "{wrong}" bottom: "teacher/ip" top: "teacher/ip" }}\n'
    )
    edit(NET, 'layer {\n  name: "student/ip1"', f'{layer}layer {{\n  name: "student/ip1"')
    (message,) = found("--allow-unloaded")["teacher-in-train-phase"]
    assert f'teacher layer "teacher/x" ({wrong}) runs in TRAIN phase' in message
    edit(NET, f'type: "{wrong}"', f'type: "{wrong}" phase: TEST')
    assert "teacher-in-train-phase" not in found("--allow-unloaded")


@pytest.mark.usefixtures("calm")
def test_a_temperature_without_its_square() -> None:
    edit(NET, "temperature: 2", "temperature: 2 scale_by_t2: false")
    (message,) = found("--batches", 0)["temperature-without-square"]
    assert "temperature 2 without its square: the gradient is about 4 times smaller" in message


@pytest.mark.usefixtures("calm")
def test_a_stock_temperature_without_its_square() -> None:
    add("""
    layer { name: "zs" type: "Power" bottom: "student/ip2" top: "zs" power_param { scale: 0.25 } }
    layer { name: "zt" type: "Power" bottom: "teacher/ip" top: "zt" power_param { scale: 0.25 } }
    layer { name: "ps" type: "Softmax" bottom: "zs" top: "ps" }
    layer { name: "pt" type: "Softmax" bottom: "zt" top: "pt" }
    layer { name: "st" type: "SigmoidCrossEntropyLoss" bottom: "ps" bottom: "pt" top: "st" }
    """)
    (message,) = found("--batches", 0)["temperature-without-square"]
    assert "temperature 4 without its square" in message
    edit(NET, 'top: "st" }', 'top: "st" loss_weight: 16 }')
    assert "temperature-without-square" not in found("--batches", 0)


@pytest.mark.usefixtures("calm")
def test_a_layer_that_no_loss_reaches() -> None:
    add("""
    layer { name: "lost" type: "InnerProduct" bottom: "student/ip1" top: "lost"
            inner_product_param { num_output: 2 } }
    """)
    assert found("--batches", 0)["no-loss-reaches"] == [
        'layer "lost": no loss reaches it, so it stays as it is'
    ]


@pytest.mark.usefixtures("calm")
def test_losses_of_very_different_strength() -> None:
    edit(NET, "loss_weight: 0.25", "loss_weight: 250")
    (message,) = found()["unbalanced-losses"]
    assert message.startswith('the gradient of "ts_loss" is ')
    assert 'as large as that of "loss"' in message


@pytest.mark.usefixtures("calm")
def test_a_loss_that_a_schedule_starts_at_zero_is_not_compared() -> None:
    with Path("joined_solver.prototxt").open("a") as file:
        file.write('schedule { layer: "ts_loss" value: 0 value: 1 }\n')
    assert found() == {}


@pytest.mark.usefixtures("calm")
def test_a_loss_of_several_temperatures_has_its_squares() -> None:
    add("""
    layer { name: "levels" type: "MultiLevelLogitDistillation" bottom: "student/ip2"
            bottom: "teacher/ip" top: "levels" loss_weight: 0.02 }
    """)
    assert "temperature-without-square" not in found()


def test_a_join_is_looked_at_with_the_weights_that_it_names(joined: Path) -> None:
    Path("student.prototxt").write_text(DATA + STUDENT)
    Path("teacher.prototxt").write_text(TEACHER)
    Path("join.prototxt").write_text(
        'teacher { net: "teacher.prototxt" rename: "{name}" weights: "teacher.caffemodel"'
        ' logits: "teacher/ip" }\n'
        'student { net: "student.prototxt" rename: "{name}" logits: "student/ip2" }\n'
    )
    assert joined
    ended = ok("check", "join.prototxt", "--device", "cpu")
    assert "looked at 24 items" in ended.err


@pytest.mark.usefixtures("calm")
def test_units_that_never_fire() -> None:
    edit(
        NET,
        'weight_filler { type: "xavier" } }\n}\nlayer { name: "student/relu1"',
        'weight_filler { type: "xavier" } bias_filler { type: "constant" value: -9 } }\n}\n'
        'layer { name: "student/relu1"',
    )
    (message,) = found()["dead-relu"]
    assert message.startswith('layer "student/relu1": 8 of 8 units (100%) never fire on 24 items')


@pytest.mark.usefixtures("calm")
def test_a_teacher_at_chance() -> None:
    given = (*GIVEN[:2], *GIVEN[4:], "--allow-unloaded", "--batches", 5, "--json")
    codes = [item["code"] for item in json.loads(ok(*given).out)]
    assert "weak-teacher" in codes
    assert "weak-teacher" not in found("--batches", 5)


@pytest.mark.usefixtures("calm")
def test_an_unloaded_teacher_is_an_error_only_where_files_were_given() -> None:
    ended = ok(*GIVEN[:2], *GIVEN[4:])
    assert "looked at no data: frozen layer" in ended.err
    edit(NET, 'name: "teacher/ip"', 'name: "teacher/other"')
    ended = run(*GIVEN)
    assert ended.code == 1
    assert "[unloaded-teacher]" in ended.faults


@pytest.mark.usefixtures("calm")
def test_strict_leaves_with_one() -> None:
    edit(NET, "temperature: 2", "temperature: 2 scale_by_t2: false")
    ended = run(*GIVEN, "--strict")
    assert ended.code == 1
    assert "[temperature-without-square]" in ended.out
    assert "\nhelp: set scale_by_t2: true" in ended.out


def test_every_check_is_found_here() -> None:
    text = Path(__file__).read_text()
    for code in check_codes():
        assert f'["{code}"]' in text or f'"{code}" in codes' in text, code
