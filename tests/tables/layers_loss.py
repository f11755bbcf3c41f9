"""Rows of the losses and of Accuracy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import oracles_layers as oracle

from tables.cases import LayerCase, fixed, integers, normal, uniform

LABELS = integers(4, np.float64)
MODES = ("BATCH_SIZE", "FULL", "NONE", "VALID")
SPATIAL: list[tuple[int, ...]] = [(2, 4, 3), (2, 3)]


def _softmax_loss(id_: str, text: str, bottoms: Any = SPATIAL, **more: Any) -> LayerCase:
    return LayerCase(
        f"SoftmaxWithLoss/{id_}",
        f'type: "SoftmaxWithLoss" {text}',
        bottoms,
        partial(oracle.softmax_loss, **more),
        domain=(normal, LABELS),
        wrt=["bottom0"],
    )


def _sigmoid_loss(id_: str, text: str, target: Any, **more: Any) -> LayerCase:
    return LayerCase(
        f"SigmoidCrossEntropyLoss/{id_}",
        f'type: "SigmoidCrossEntropyLoss" {text}',
        [(3, 4), (3, 4)],
        partial(oracle.sigmoid_loss, **more),
        domain=(normal, target),
        wrt=["bottom0"],
    )


def _teacher_student(id_: str, text: str, shape: Any = (3, 4), **more: Any) -> LayerCase:
    return LayerCase(
        f"TeacherStudentCrossEntropy/{id_}",
        f'type: "TeacherStudentCrossEntropy" {text}',
        [shape, shape],
        partial(oracle.distillation_loss, **more),
        domain=(normal, normal),
        wrt=["bottom0"],
    )


def _accuracy(id_: str, text: str, bottoms: Any, tops: int = 1, **more: Any) -> LayerCase:
    function = partial(oracle.accuracy, **{k: v for k, v in more.items() if k != "domain"})
    return LayerCase(
        f"Accuracy/{id_}",
        f'type: "Accuracy" {text}',
        bottoms,
        function if tops == 2 else oracle.first(function),
        domain=more.get("domain", (normal, LABELS)),
        wrt=[],
        tops=tops,
    )


def _two_tops(x, labels):
    return oracle.softmax_loss(x, labels), oracle.softmax(x)


CASES = (
    _accuracy(
        "axis_ignore_label",
        "accuracy_param { axis: -1 ignore_label: 2 }",
        [(2, 5, 4), (2, 5)],
        axis=-1,
        ignore=2,
    ),
    _accuracy("by_class", "", [(9, 4), (9,)], tops=2),
    _accuracy(
        "by_class_ignore_label",
        "accuracy_param { ignore_label: 1 }",
        [(4, 4, 3), (4, 3)],
        tops=2,
        ignore=1,
    ),
    _accuracy("default", "", [(9, 4), (9,)]),
    _accuracy(
        "none_counted",
        "accuracy_param { ignore_label: 3 }",
        [(2, 4), (2,)],
        tops=2,
        ignore=3,
        domain=(normal, fixed(3, 3)),
    ),
    _accuracy(
        "ties",
        "",
        [(3, 3), (3,)],
        domain=(fixed(5, 5, 1, 0, 7, 0, 3, 3, 3), fixed(0, 1, 2)),
    ),
    _accuracy("top_2", "accuracy_param { top_k: 2 }", [(9, 4), (9, 1)], top_k=2),
    LayerCase(
        "EuclideanLoss/default", 'type: "EuclideanLoss"', [(3, 4)] * 2, oracle.euclidean_loss
    ),
    LayerCase(
        "EuclideanLoss/other_axes",
        'type: "EuclideanLoss"',
        [(3, 4), (3, 2, 2)],
        oracle.euclidean_loss,
    ),
    _sigmoid_loss("default", "", uniform(0, 1)),
    _sigmoid_loss(
        "ignore_label",
        "loss_param { ignore_label: 0 normalization: VALID }",
        integers(2, np.float64),
        mode="VALID",
        ignore=0,
    ),
    _sigmoid_loss("normalize", "loss_param { normalize: true }", uniform(0, 1), mode="VALID"),
    *(
        _sigmoid_loss(
            f"normalization_{mode.lower()}",
            f"loss_param {{ ignore_label: -1 normalization: {mode} }}",
            fixed(0, 1, -1, 1, 1, 0, -1, 0, 1, 0, -1, 1),
            mode=mode,
            ignore=-1,
        )
        for mode in MODES
    ),
    _softmax_loss("all_ignored", "loss_param { ignore_label: 4 }", ignore=4),
    _softmax_loss("axis", "softmax_param { axis: -1 }", [(2, 3, 4), (2, 3)], axis=-1),
    _softmax_loss("default", "", [(5, 4), (5,)]),
    _softmax_loss("normalize_false", "loss_param { normalize: false }", mode="BATCH_SIZE"),
    *(
        _softmax_loss(
            f"normalization_{mode.lower()}",
            f"loss_param {{ ignore_label: 1 normalization: {mode} }}",
            mode=mode,
            ignore=1,
        )
        for mode in MODES
    ),
    LayerCase(
        "SoftmaxWithLoss/two_tops",
        'type: "SoftmaxWithLoss"',
        [(3, 4), (3,)],
        _two_tops,
        domain=(normal, LABELS),
        wrt=["bottom0"],
        tops=2,
    ),
    _teacher_student(
        "axis", "teacher_student_cross_entropy_param { axis: -1 }", (2, 3, 4), axis=-1
    ),
    _teacher_student(
        "batch_size", "loss_param { normalization: BATCH_SIZE }", (2, 3, 4), mode="BATCH_SIZE"
    ),
    _teacher_student("default", ""),
    _teacher_student("none", "loss_param { normalization: NONE }", mode="NONE"),
    _teacher_student(
        "temperature",
        "teacher_student_cross_entropy_param { temperature: 4 }",
        temperature=4,
    ),
    _teacher_student(
        "temperature_alone",
        "teacher_student_cross_entropy_param { temperature: 2 scale_by_t2: false }",
        (2, 4, 3),
        temperature=2,
        squared=False,
    ),
)
