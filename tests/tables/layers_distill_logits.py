"""Rows of the distillation losses between logits."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import oracles_distill_logits as oracle

from tables.cases import Array, LayerCase, Shape, fixed, integers, normal, uniform

MAPS: Shape = (2, 4, 3)
PLACES: Shape = (2, 3)
MODES = ("BATCH_SIZE", "FULL", "NONE", "VALID")
FIELD = {
    "CurriculumTemperatureDistillation": "curriculum_temperature_distillation_param",
    "DIST": "dist_param",
    "DecoupledKnowledgeDistillation": "decoupled_knowledge_distillation_param",
    "LabelSmoothingCrossEntropy": "label_smoothing_cross_entropy_param",
    "MultiLevelLogitDistillation": "multi_level_logit_distillation_param",
    "SoftLabelSigmoidCrossEntropy": "soft_label_sigmoid_cross_entropy_param",
    "TeacherFreeKnowledgeDistillation": "teacher_free_knowledge_distillation_param",
    "TeacherStudentCrossEntropy": "teacher_student_cross_entropy_param",
    "WeightedSoftLabelDistillation": "weighted_soft_label_distillation_param",
}


def probabilities(rng: np.random.Generator, shape: Shape) -> Array:
    """Of classes on axis 1, with a zero in each vector."""
    drawn = rng.uniform(0.1, 1.0, shape)
    drawn[:, 0] = 0.0
    return drawn / drawn.sum(axis=1, keepdims=True)


def unlabelled(rng: np.random.Generator, shape: Shape) -> Array:
    """Probabilities, of which a third are -1 and some are exactly 0, 1 or 0.25."""
    return rng.choice([-1.0, -1.0, 0.0, 1.0, 0.25, 0.7], shape)


def _row(
    type_name: str,
    id_: str,
    text: str,
    bottoms: Any,
    function: Any,
    *,
    loss_param: str = "",
    domain: Any = normal,
    wrt: Any = ("bottom0",),
) -> LayerCase:
    params = f"{FIELD[type_name]} {{ {text} }}" if text else ""
    normalization = f"loss_param {{ {loss_param} }}" if loss_param else ""
    return LayerCase(
        f"{type_name}/{id_}",
        " ".join([f'type: "{type_name}"', params, normalization]).strip(),
        bottoms,
        function,
        domain=domain,
        wrt=list(wrt),
    )


def _soft(id_: str, text: str = "", teachers: int = 1, shape: Shape = (3, 4), **more: Any) -> Any:
    loss_param = more.pop("loss_param", "")
    domain = more.pop("domain", normal)
    function = partial(oracle.teacher_student, **more)
    name = "TeacherStudentCrossEntropy"
    bottoms = [shape] * (1 + teachers)
    return _row(name, id_, text, bottoms, function, loss_param=loss_param, domain=domain)


def _labelled(
    type_name: str, function: Any, id_: str, text: str = "", *, teacher: bool, **more: Any
) -> LayerCase:
    shape, places = more.pop("shapes", ((5, 4), (5,)))
    loss_param = more.pop("loss_param", "")
    labels = more.pop("labels", integers(4, np.float64))
    bottoms = [shape, shape, places] if teacher else [shape, places]
    domain = (normal,) * (1 + teacher) + (labels,)
    called = partial(function, **more)
    return _row(type_name, id_, text, bottoms, called, loss_param=loss_param, domain=domain)


def _with_modes(type_name: str, function: Any, *, teacher: bool) -> list[LayerCase]:
    make = partial(_labelled, type_name, function, teacher=teacher)
    return [
        make("default"),
        make("axis", "axis: -1", shapes=((2, 3, 4), (2, 3)), axis=-1),
        make("all_ignored", loss_param="ignore_label: 3", labels=fixed(*[3] * 5), ignore=3),
        *(
            make(
                f"normalization_{mode.lower()}",
                loss_param=f"ignore_label: 1 normalization: {mode}",
                shapes=(MAPS, PLACES),
                labels=fixed(0, 1, 2, 3, 1, 2),
                mode=mode,
                ignore=1,
            )
            for mode in MODES
        ),
    ]


DIVERGENCES = [
    _soft(
        f"{name.lower()}{suffix}",
        f"divergence: {name} temperature: {temperature}",
        name=name,
        temperature=temperature,
    )
    for name in ("JS", "KL", "REVERSE_KL")
    for suffix, temperature in (("", 1), ("_softened", 4))
]
TEACHERS = [
    _soft("teachers", teachers=3),
    _soft(
        "teachers_logits",
        "ensemble: LOGITS temperature: 2 divergence: KL",
        teachers=2,
        ensemble="LOGITS",
        temperature=2,
        name="KL",
    ),
    _soft(
        "teachers_logits_standardized",
        "ensemble: LOGITS standardize: true teacher_weight: 0 teacher_weight: 2",
        teachers=2,
        ensemble="LOGITS",
        standardize=True,
        weights=(0, 2),
    ),
    *(
        _soft(
            f"teachers_weighted_{name.lower()}",
            f"divergence: {name} teacher_weight: 3 teacher_weight: 1",
            teachers=2,
            name=name,
            weights=(3, 1),
        )
        for name in ("JS", "KL", "REVERSE_KL")
    ),
    *(
        _soft(
            f"teacher_probabilities_{name.lower()}",
            f"teacher: PROBABILITIES divergence: {name} temperature: {temperature}",
            teachers=2,
            domain=(normal, probabilities, probabilities),
            answers="PROBABILITIES",
            temperature=temperature,
            name=name,
        )
        for name, temperature in (("CROSS_ENTROPY", 1), ("JS", 2), ("KL", 4), ("REVERSE_KL", 0.5))
    ),
]
STANDARDIZED = [
    _soft("standardize", "standardize: true", shape=(3, 6), standardize=True),
    _soft(
        "standardize_axis",
        "standardize: true temperature: 2 divergence: KL axis: -1",
        shape=(2, 3, 5),
        standardize=True,
        temperature=2,
        name="KL",
        axis=-1,
    ),
]
DKD = partial(_labelled, "DecoupledKnowledgeDistillation", oracle.decoupled, teacher=True)
RELATIONS = [
    _row("DIST", "default", "", [(4, 3)] * 2, oracle.dist),
    _row(
        "DIST",
        "maps",
        "axis: -2 beta: 2 gamma: 0.5 temperature: 4",
        [(2, 4, 3)] * 2,
        partial(oracle.dist, axis=1, beta=2, gamma=0.5, temperature=4),
    ),
    *(
        _row(
            "MultiLevelLogitDistillation",
            id_,
            text,
            [shape] * 2,
            partial(oracle.multi_level, **more),
        )
        for id_, text, shape, more in (
            ("default", "", (4, 3), {}),
            ("mask_even", "confidence_mask: true", (4, 6), {"masked": True}),
            ("mask_odd", "confidence_mask: true", (5, 3), {"masked": True}),
            ("one_item", "confidence_mask: true", (1, 3), {"masked": True}),
            (
                "standardize",
                "standardize: true temperature: 2 temperature: 1",
                (3, 4),
                {"standardize": True, "temperatures": (2, 1)},
            ),
            (
                "weights",
                "instance_weight: 0.5 batch_weight: 2 class_weight: 0.25 temperature: 3",
                (3, 4, 1, 1),
                {"weights": (0.5, 2, 0.25), "temperatures": (3,)},
            ),
        )
    ),
]
TEACHER_FREE = [
    *_with_modes("LabelSmoothingCrossEntropy", oracle.label_smoothing, teacher=False),
    _labelled(
        "LabelSmoothingCrossEntropy",
        oracle.label_smoothing,
        "sure",
        "correct_probability: 1",
        teacher=False,
        correct=1,
    ),
    *_with_modes("TeacherFreeKnowledgeDistillation", oracle.teacher_free, teacher=False),
    _labelled(
        "TeacherFreeKnowledgeDistillation",
        oracle.teacher_free,
        "cold",
        "correct_probability: 0.75 temperature: 0.5",
        teacher=False,
        correct=0.75,
        temperature=0.5,
    ),
]
SIGMOIDS = [
    _row(
        "SoftLabelSigmoidCrossEntropy",
        id_,
        text,
        [(3, 4), shape],
        partial(oracle.soft_label_sigmoid, **more),
        loss_param=loss_param,
        domain=(normal, domain),
    )
    for id_, text, loss_param, shape, domain, more in (
        ("confidence", "weight_by_confidence: true", "", (3, 4), unlabelled, {"confident": True}),
        ("default", "", "", (3, 4), uniform(0, 1), {}),
        ("ignore_value", "ignore_value: 0.25", "", (3, 4), unlabelled, {"ignore": 0.25}),
        (
            "temperature",
            "temperature: 3 weight_by_confidence: true",
            "",
            (3, 2, 2),
            unlabelled,
            {"temperature": 3, "confident": True},
        ),
        ("unlabelled_all", "", "", (3, 4), fixed(*[-1] * 12), {}),
        *(
            (f"{mode.lower()}", "", f"normalization: {mode}", (3, 4), unlabelled, {"mode": mode})
            for mode in MODES
        ),
    )
]
CURRICULUM = [
    _row(
        "CurriculumTemperatureDistillation",
        id_,
        text,
        [shape] * 2,
        partial(oracle.curriculum_temperature, **more),
    )
    for id_, text, shape, more in (
        ("default", "", (3, 4), {}),
        (
            "maps",
            "minimum: 0.5 range: 2 reversal: 0.5 axis: -1",
            (2, 3, 4),
            {"minimum": 0.5, "width": 2, "axis": -1},
        ),
    )
]
CASES = (
    *CURRICULUM,
    *_with_modes("DecoupledKnowledgeDistillation", oracle.decoupled, teacher=True),
    DKD("two_classes", shapes=((3, 2), (3,)), labels=integers(2, np.float64)),
    DKD("weights", "alpha: 0 beta: 2 temperature: 1", alpha=0, beta=2, temperature=1),
    DKD("standardize", "standardize: true temperature: 2", temperature=2, standardize=True),
    *(
        _row(
            "LogitsMSE",
            mode.lower(),
            "",
            [(3, 4, 2)] * 2,
            partial(oracle.logits_mse, mode=mode),
            loss_param=f"normalization: {mode}",
        )
        for mode in MODES
    ),
    _row("LogitsMSE", "default", "", [(3, 4)] * 2, oracle.logits_mse),
    *RELATIONS,
    *SIGMOIDS,
    *TEACHER_FREE,
    *DIVERGENCES,
    *STANDARDIZED,
    *TEACHERS,
    *(
        LayerCase(**{**case.__dict__, "wrt": []})
        for case in _with_modes(
            "WeightedSoftLabelDistillation", oracle.weighted_soft_labels, teacher=True
        )
    ),
)
