"""What predictions are worth: each metric against its definition, and what is printed of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_nets import ok, run

from kdnet.compile import trace_forward
from kdnet.compile.heads import heads_of, teaching_pairs
from kdnet.graph import Emitter
from kdnet.net import NetState, resolve_net
from kdnet.runtime.scoring import Collector, as_text, metrics, score_head
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

RNG = np.random.default_rng(3)
SCORES = RNG.normal(size=(400, 7)) * 3
LABELS = np.where(RNG.random(400) < 0.6, SCORES.argmax(axis=1), RNG.integers(0, 7, 400))
GIVEN = ("test", "joined.prototxt", "--device", "cpu", "--iterations", 2)
WEIGHTS = "teacher.caffemodel,run_iter_6.caffemodel"


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_top_k_counts_ties_against_the_label() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [3.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    labels = np.array([0, 0, 0])
    assert [metrics.top_k(scores, labels, k) for k in (1, 2, 3)] == [1 / 3, 2 / 3, 1]


def test_cross_entropy_is_that_of_the_softmax() -> None:
    wanted = -np.log(softmax(SCORES)[np.arange(400), LABELS]).mean()
    assert metrics.cross_entropy(SCORES, LABELS) == pytest.approx(wanted)
    assert metrics.cross_entropy(np.array([[2000.0, 0.0]]), np.array([1])) == 2000


def test_the_fitted_temperature_is_the_best_of_a_fine_grid() -> None:
    grid = np.geomspace(0.05, 20, 2001)
    best = min(grid, key=lambda t: metrics.cross_entropy(SCORES / t, LABELS))
    assert metrics.fitted_temperature(SCORES, LABELS) == pytest.approx(best, rel=5e-3)


def test_a_perfect_classifier_is_sharpened_until_nothing_is_lost() -> None:
    scores, labels = np.eye(3), np.arange(3)
    temperature = metrics.fitted_temperature(scores, labels)
    assert 0 < temperature < 0.05
    assert metrics.cross_entropy(scores / temperature, labels) < 1e-12


def test_calibration_error_by_its_definition() -> None:
    p = softmax(SCORES)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == LABELS
    wanted = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.calibration_error(SCORES, LABELS) == pytest.approx(wanted)


def test_agreement_and_divergence() -> None:
    other = SCORES + RNG.normal(size=SCORES.shape)
    p, q = softmax(SCORES), softmax(other)
    assert metrics.agreement(SCORES, SCORES) == 1
    wanted = (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert metrics.agreement(SCORES, other) == wanted
    assert metrics.divergence(SCORES, SCORES + 5) == pytest.approx(0, abs=1e-12)
    kl = (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    assert metrics.divergence(SCORES, other) == pytest.approx(kl)


def test_the_threshold_keeps_nineteen_of_twenty_right_answers() -> None:
    confidence = np.linspace(0, 1, 2001)
    right = np.arange(2001) % 2 == 0
    threshold = metrics.rejection_threshold(confidence, right)
    assert (confidence[right] >= threshold).mean() == pytest.approx(0.95, abs=1e-3)
    assert metrics.rejection_threshold(confidence, right & False) is None


def test_the_area_counts_pairs_and_halves_ties() -> None:
    inside = np.round(RNG.random(40), 1)
    outside = np.round(RNG.random(30) * 0.8, 1)
    gap = inside[:, None] - outside[None]
    wanted = ((gap > 0) + 0.5 * (gap == 0)).mean()
    assert metrics.ranking_area(inside, outside) == pytest.approx(wanted)


def test_binary_cross_entropy_does_not_overflow() -> None:
    x, t = np.array([3.0, -2.0, 800.0]), np.array([1.0, 0.25, 1.0])
    p = 1 / (1 + np.exp(-x[:2]))
    wanted = (-(t[:2] * np.log(p) + (1 - t[:2]) * np.log(1 - p))).sum() / 3
    assert metrics.binary_cross_entropy(x, t) == pytest.approx(wanted)


# --- heads

BOTTOMS = """
layer { name: "in" type: "DummyData" top: "x" top: "label" top: "bits"
        dummy_data_param { shape { dim: 4 dim: 7 } shape { dim: 4 } shape { dim: 4 dim: 2 } } }
"""
SOME = "param { lr_mult: 0 } param { lr_mult: 0 }"


def dense(name: str, bottom: str, count: int, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more} '
        f"inner_product_param {{ num_output: {count} }} }}"
    )


def forward_of(text: str):
    located = read_text(BOTTOMS + text, "net.prototxt", pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    return trace_forward(net, Emitter())


def test_heads_of_every_kind_are_found() -> None:
    forward = forward_of(
        dense("s", "x", 3)
        + dense("b", "x", 2)
        + dense("code", "x", 2)
        + dense("out", "code", 7)
        + dense("t", "x", 3, SOME)
        + """
        layer { name: "l1" type: "SoftmaxWithLoss" bottom: "s" bottom: "label"
                loss_param { ignore_label: 2 } }
        layer { name: "l2" type: "SigmoidCrossEntropyLoss" bottom: "b" bottom: "bits" }
        layer { name: "l3" type: "EuclideanLoss" bottom: "out" bottom: "x" }
        layer { name: "l4" type: "TeacherStudentCrossEntropy" bottom: "s" bottom: "t" }
        layer { name: "l5" type: "EuclideanLoss" bottom: "s" bottom: "t" }
        """
    )
    found = {h.blob: (h.kind, h.part.value, h.ignore, h.teachers) for h in heads_of(forward)}
    assert found == {
        "s": ("classes", "moving", 2, ("t",)),
        "b": ("binary", "moving", None, ()),
        "out": ("values", "moving", None, ()),
        "t": ("classes", "frozen", 2, ()),
    }


def test_two_softmaxes_under_a_loss_are_a_pair() -> None:
    forward = forward_of(
        dense("s", "x", 3)
        + dense("t", "x", 3, SOME)
        + """
        layer { name: "ps" type: "Softmax" bottom: "s" top: "ps" }
        layer { name: "pt" type: "Softmax" bottom: "t" top: "pt" }
        layer { name: "kd" type: "SigmoidCrossEntropyLoss" bottom: "ps" bottom: "pt" }
        """
    )
    assert teaching_pairs(forward) == (("s", "t", False),)
    assert heads_of(forward) == ()


def score_of(blob: str, forward, predictions: dict, targets: dict):
    heads = [head for head in heads_of(forward) if head.blob == blob]
    found = Collector(heads)
    found.add(predictions, targets)
    return score_head(heads[0], found)


def test_items_of_no_class_are_outsiders() -> None:
    text = dense("s", "x", 7) + (
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" '
        "loss_param { ignore_label: 255 } }"
    )
    labels = LABELS.copy()
    labels[::4] = 255
    scores = SCORES.copy()
    scores[::4] *= 0.01
    score = score_of("s", forward_of(text), {"s": scores}, {"s": labels})
    inside = labels != 255
    assert (score.items, score.outsiders) == (300, 100)
    assert score.top1 == (scores.argmax(axis=1) == labels)[inside].mean()
    assert score.outsiders_rejected == 1
    assert score.outsiders_auroc > 0.99
    plain = score_of("s", forward_of(text), {"s": scores[inside]}, {"s": labels[inside]})
    assert plain.loss == score.loss
    assert plain.outsiders_auroc is None


def test_maps_count_every_position() -> None:
    text = (
        'layer { name: "c" type: "DummyData" top: "c" '
        "dummy_data_param { shape { dim: 4 dim: 3 dim: 2 dim: 2 } } }"
        'layer { name: "u" type: "DummyData" top: "u" '
        "dummy_data_param { shape { dim: 4 dim: 2 dim: 2 } } }"
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "c" bottom: "u" }'
    )
    scores = RNG.normal(size=(4, 3, 2, 2))
    labels = scores.argmax(axis=1)
    score = score_of("c", forward_of(text), {"c": scores}, {"c": labels})
    assert (score.items, score.top1) == (16, 1)


def test_a_full_collector_says_what_it_left_out() -> None:
    forward = forward_of(
        dense("s", "x", 3)
        + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" }'
    )
    found = Collector(heads_of(forward), limit=20)
    for _ in range(3):
        found.add({"s": np.zeros((4, 3))}, {"s": np.zeros(4)})
    assert found.left_out == 2
    assert len(found.rows("s")) == 4


# --- the command


def test_students_and_teachers_are_scored(joined: Path) -> None:
    ok("train", "joined.prototxt", "--weights", "teacher.caffemodel", "--device", "cpu")
    found = json.loads(ok(*GIVEN, "--weights", WEIGHTS, "--json", "-").out)
    assert found["batches"] == 2
    student, teacher = found["heads"]
    assert (student["blob"], teacher["blob"]) == ("student/ip2", "teacher/ip")
    assert (student["teacher"], teacher["teacher"]) == (False, True)
    assert student["top1"] == pytest.approx(found["outputs"]["accuracy"])
    assert student["loss"] == pytest.approx(found["outputs"]["loss"], rel=1e-5)
    assert student["items"] == 20
    assert 0 <= student["agreement"]["teacher/ip"] <= 1
    assert student["divergence"]["teacher/ip"] > 0
    written = ok(*GIVEN, "--weights", WEIGHTS, "--json", "scores.json")
    assert json.loads((joined / "scores.json").read_text()) == found
    assert 'classifier "student/ip2", 20 items\n  top-1 accuracy ' in written.out
    assert 'agreement with "teacher/ip"' in written.out


def test_a_teacher_without_weights_is_left_out(joined: Path) -> None:
    ok("train", "joined.prototxt", "--weights", "teacher.caffemodel", "--device", "cpu")
    silence = 'layer { name: "hush" type: "Silence" bottom: "teacher/ip" include { phase: TEST } }'
    with (joined / "joined.prototxt").open("a") as file:
        file.write(silence)
    ended = ok(*GIVEN, "--weights", "run_iter_6.caffemodel", "--json", "-")
    heads = json.loads(ended.out)["heads"]
    assert [head["blob"] for head in heads] == ["student/ip2"]
    assert heads[0]["agreement"] == {}
    assert 'teacher "teacher/ip" is not scored' in ended.err


def test_an_auto_encoder_tells_the_quantiles_of_its_errors(joined: Path) -> None:
    (joined / "auto.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "data" top: "label" '
        'data_param { source: "digits_lmdb" backend: LMDB batch_size: 10 } '
        "transform_param { scale: 0.00390625 } }"
        'layer { name: "code" type: "InnerProduct" bottom: "data" top: "code" '
        'inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }'
        'layer { name: "out" type: "InnerProduct" bottom: "code" top: "out" '
        'inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }'
        'layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }'
        'layer { name: "l" type: "EuclideanLoss" bottom: "out" bottom: "flat" top: "l" }'
        'layer { name: "s" type: "Silence" bottom: "label" }'
    )
    ended = ok("test", "auto.prototxt", "--device", "cpu", "--iterations", 3, "--json", "-")
    found = json.loads(ended.out)
    (head,) = found["heads"]
    assert (head["kind"], head["items"]) == ("values", 30)
    # EuclideanLoss is half the squared distance of an item of 16 values.
    assert head["mean"] == pytest.approx(found["outputs"]["l"] * 2 / 16, rel=1e-5)
    levels = list(head["quantiles"].values())
    assert levels == sorted(levels)
    assert head["threshold"] == head["quantiles"]["0.95"]
    text = ok("test", "auto.prototxt", "--device", "cpu", "--iterations", 3).out
    assert 'auto-encoder "out", 30 items\n  mean squared error  ' in text


def test_a_binary_head_counts_its_entries() -> None:
    text = dense("b", "x", 2) + (
        'layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "b" bottom: "bits" }'
    )
    logits = np.array([[2.0, -1.0], [-3.0, 4.0]])
    targets = np.array([[1.0, 1.0], [0.0, -1.0]])
    score = score_of("b", forward_of(text), {"b": logits}, {"b": targets})
    assert (score.entries, score.accuracy) == (3, 2 / 3)
    assert as_text([score]).splitlines()[0] == 'binary head "b", 3 entries'


def test_a_binary_head_may_follow_a_frozen_one() -> None:
    text = (
        dense("b", "x", 2)
        + dense("t", "x", 2, SOME)
        + """
        layer { name: "p" type: "Sigmoid" bottom: "t" top: "p" }
        layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "b" bottom: "p" }
        """
    )
    logits = np.array([[2.0, -1.0], [-3.0, 4.0]])
    taught = np.array([[0.9, 0.2], [0.6, 0.8]])
    score = score_of("b", forward_of(text), {"b": logits}, {"b": taught})
    assert (score.entries, score.accuracy) == (4, 0.75)


def test_json_that_cannot_be_written_is_told(joined: Path) -> None:
    ended = run("test", "student.prototxt", "--iterations", 1, "--json", "no/where.json")
    assert ended.code == 1
    assert "[cannot-write]" in ended.faults
    assert not (joined / "no").exists()


def test_a_teacher_may_answer_with_probabilities() -> None:
    text = dense("s", "x", 7) + (
        'layer { name: "a" type: "DummyData" top: "p" '
        "dummy_data_param { shape { dim: 4 dim: 7 } } }"
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" }'
        'layer { name: "k" type: "TeacherStudentCrossEntropy" bottom: "s" bottom: "p" '
        "teacher_student_cross_entropy_param { teacher: PROBABILITIES } }"
    )
    forward = forward_of(text)
    heads = heads_of(forward)
    assert [head.probabilities for head in heads] == [False, True]
    found = Collector(heads)
    found.add({"s": SCORES, "p": softmax(SCORES)}, {"s": LABELS, "p": LABELS})
    student, teacher = (score_head(head, found) for head in heads)
    assert teacher.teacher
    assert teacher.loss == pytest.approx(student.loss, rel=1e-5)
    assert student.divergence["p"] == pytest.approx(0, abs=1e-6)
