"""Losses between logits: their authors' numbers, and what must hold of any of them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import oracles_distill_logits as oracle
import pytest
from gradcheck import Check, Program, Traced, onnxruntime_run, reference, relative_error
from layer_programs import emitted, layer_model
from tables.cases import integers, positive

from kdnet.autodiff import gradients
from kdnet.graph import Emitter, Tensor
from kdnet.layers import Trace, layer_class, layer_types
from kdnet.layers.registry import class_of_type

GOLDEN = Path(__file__).parent / "golden" / "distillation" / "logits.npz"
EXACT, RELATIVE = 1e-6, 1e-5
SHAPE = (5, 6)
LABELS = integers(6, np.float64)(np.random.default_rng(3), (5,))

DECOUPLED = 'type: "DecoupledKnowledgeDistillation"'
FIELD = "teacher_student_cross_entropy_param"
SOFT = 'type: "TeacherStudentCrossEntropy"'
TWINS = {
    "cross_entropy": f"{SOFT} {FIELD} {{ temperature: 4 }}",
    "decoupled": DECOUPLED,
    "dist": 'type: "DIST"',
    "js": f"{SOFT} {FIELD} {{ divergence: JS temperature: 2 }}",
    "kl": f"{SOFT} {FIELD} {{ divergence: KL standardize: true }}",
    "levels": 'type: "MultiLevelLogitDistillation"',
    "mse": 'type: "LogitsMSE"',
    "reverse_kl": f"{SOFT} {FIELD} {{ divergence: REVERSE_KL temperature: 4 }}",
    "temperature": 'type: "CurriculumTemperatureDistillation"',
    "weighted": 'type: "WeightedSoftLabelDistillation"',
}
LABELLED = ("decoupled", "weighted")
WITH_ENTROPY = ("cross_entropy", "weighted")


@cache
def golden() -> dict[str, dict[str, np.ndarray]]:
    with zipfile.ZipFile(GOLDEN) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(GOLDEN) as arrays:
        for name in names:
            case, _, key = name.rpartition("/")
            found.setdefault(case, {})[key] = arrays[name]
    return found


def build(
    text: str, g: Emitter, given: Mapping[str, Tensor], bottoms: int = 2
) -> Mapping[str, Tensor]:
    return emitted(g, layer_model(text, "TRAIN", bottoms, 1), given).outputs()


def check_of(text: str, *bottoms: np.ndarray, wrt: tuple[str, ...] = ("bottom0",)) -> Check:
    """The layer on these bottoms and, where it has weights, on ones."""
    arrays = {f"bottom{i}": np.asarray(array, np.float64) for i, array in enumerate(bottoms)}
    if "Curriculum" in text:
        arrays["weight0"] = np.ones(1)
    return Check(Program(partial(build, text, bottoms=len(bottoms)), arrays, wrt))


def value_of(text: str, *bottoms: np.ndarray) -> float:
    return float(check_of(text, *bottoms).forward()["top0"])


def slope_of(text: str, *bottoms: np.ndarray) -> np.ndarray:
    """The gradient of the loss itself by bottom 0."""
    check = check_of(text, *bottoms)
    return check.gradient("bottom0") / check.seeds["seed/top0"]


def normal(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return 2 * np.random.default_rng(seed).standard_normal(shape)


def golden_program(case: str) -> tuple[Program, dict[str, np.ndarray]]:
    """The layer on the authors' inputs, and what they make of them."""
    numbers = golden()[case]
    bottoms = [n for n in numbers if n.startswith("bottom") and "diff" not in n]
    arrays = {name: numbers[name] for name in bottoms}
    expected = {"top0": numbers["top0"], "d/bottom0": numbers["bottomdiff0"]}
    wrt = ["bottom0"]
    if "param0" in numbers:
        arrays["weight0"] = numbers["param0"]
        expected["d/weight0"] = numbers["paramdiff0"]
        wrt.append("weight0")
    text = str(numbers["prototxt"])
    return Program(partial(build, text, bottoms=len(bottoms)), arrays, tuple(wrt)), expected


@pytest.mark.parametrize("case", golden())
def test_value_and_gradients_are_the_authors(case: str) -> None:
    program, expected = golden_program(case)
    check = Check(program)
    results = reference(check.model)({**program.arrays, "seed/top0": np.array(1.0)})
    assert set(results) == set(expected)
    for name, value in expected.items():
        error = np.max(np.abs(results[name] - value)) / np.max(np.abs(value))
        assert error <= EXACT, f"{name}: off by {error:.1e}"


@pytest.mark.parametrize("case", golden())
def test_in_float32_they_are_the_authors_too(case: str) -> None:
    program, expected = golden_program(case)
    traced = Traced(program, np.float32)
    found = {f"d/{name}": t for name, t in traced.with_gradients(program.wrt).items()}
    model = traced.model(traced.outputs | found)
    results = onnxruntime_run(model, {**program.arrays, "seed/top0": np.array(1.0)})
    for name, value in expected.items():
        error = np.max(np.abs(results[name] - value)) / np.max(np.abs(value))
        # T² · KL hardly depends on a high T, so that its derivative is left of larger numbers.
        allowed = 1e-3 if name == "d/weight0" else RELATIVE
        assert error <= allowed, f"{name}: off by {error:.1e}"


def test_every_loss_between_logits_has_its_authors_numbers() -> None:
    rows = {name.split("/")[0] for name in golden()}
    teaching = {
        name
        for name in layer_types()
        if "teacher logits" in class_of_type(name).roles
        and ".forks." not in class_of_type(name).__module__
    }
    assert teaching <= rows


@pytest.mark.parametrize("name", TWINS)
def test_a_student_equal_to_its_teacher_learns_nothing(name: str) -> None:
    logits = normal(1)
    more = [LABELS] if name in LABELLED else []
    assert np.max(np.abs(slope_of(TWINS[name], logits, logits, *more))) < 1e-6
    if name not in WITH_ENTROPY:
        assert abs(value_of(TWINS[name], logits, logits, *more)) < 1e-6


@pytest.mark.parametrize("name", TWINS)
def test_a_student_unlike_its_teacher_learns(name: str) -> None:
    more = [LABELS] if name in LABELLED else []
    assert np.max(np.abs(slope_of(TWINS[name], normal(1), normal(2), *more))) > 1e-4


@pytest.mark.parametrize("name", TWINS)
def test_teachers_and_labels_get_no_gradient(name: str) -> None:
    g = Emitter()
    count = 3 if name in LABELLED else 2
    shapes = (SHAPE, SHAPE, (5,))[:count]
    given = {f"bottom{i}": g.input(f"bottom{i}", shape) for i, shape in enumerate(shapes)}
    given["weight0"] = g.input("weight0", (1,))
    top = build(TWINS[name], g, given, bottoms=count)["top0"]
    others = [given[f"bottom{i}"] for i in range(1, count)]
    assert gradients(g, [(top, g.constant(np.ones(())))], others) == {}


@pytest.mark.parametrize("temperature", [1, 4])
def test_cross_entropy_is_the_divergence_and_the_teacher_s_entropy(temperature: int) -> None:
    student, teacher = normal(1), normal(2)
    crossed, kl = (
        f"{SOFT} {FIELD} {{ divergence: {name} temperature: {temperature} }}"
        for name in ("CROSS_ENTROPY", "KL")
    )
    p = oracle.softmax(teacher / temperature)
    entropy = -np.mean(np.sum(p * np.log(p), axis=1)) * temperature**2
    apart = value_of(crossed, student, teacher) - value_of(kl, student, teacher)
    assert apart == pytest.approx(entropy, rel=1e-12)
    slopes = [slope_of(text, student, teacher) for text in (crossed, kl)]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-14)


def test_js_is_symmetric_and_at_most_ln_2() -> None:
    text = f"{SOFT} {FIELD} {{ divergence: JS }}"
    a, b = normal(1), normal(2)
    assert value_of(text, a, b) == pytest.approx(value_of(text, b, a), rel=1e-12)
    far = 40 * np.eye(5, 6)
    assert value_of(text, far, far[::-1]) < np.log(2)
    reverse, forward = (
        f"{SOFT} {FIELD} {{ divergence: {name} }}" for name in ("REVERSE_KL", "KL")
    )
    assert value_of(reverse, a, b) == pytest.approx(value_of(forward, b, a), rel=1e-12)


def test_probabilities_and_logits_of_one_teacher_teach_the_same() -> None:
    student, teacher = normal(1), normal(2)
    logits, answers = (
        f"{SOFT} {FIELD} {{ temperature: 3 divergence: KL {more} }}"
        for more in ("", "teacher: PROBABILITIES")
    )
    known, answered = (
        slope_of(text, student, given)
        for text, given in ((logits, teacher), (answers, oracle.softmax(teacher)))
    )
    np.testing.assert_allclose(answered, known, atol=1e-12)


def test_cold_answers_of_a_black_box_do_not_vanish() -> None:
    text = f"{SOFT} {FIELD} {{ teacher: PROBABILITIES temperature: 0.01 }}"
    answers = np.full(SHAPE, 1 / 6)
    check = check_of(text, normal(1), answers)
    check.float32()
    assert np.isfinite(check.forward()["top0"])


def test_standardising_forgets_scale_and_shift() -> None:
    text = f"{SOFT} {FIELD} {{ standardize: true temperature: 2 }}"
    student, teacher = normal(1), normal(2)
    moved = value_of(text, 7 * student - 3, teacher)
    assert moved == pytest.approx(value_of(text, student, teacher), rel=1e-6)


@pytest.mark.parametrize(
    "text", [TWINS["kl"], TWINS["dist"], f"{DECOUPLED} loss_param {{ normalization: FULL }}"]
)
def test_equal_logits_have_a_finite_gradient(text: str) -> None:
    labels = [LABELS] if "Decoupled" in text else []
    assert np.all(np.isfinite(slope_of(text, np.zeros(SHAPE), normal(1), *labels)))


def test_far_apart_logits_keep_the_decoupled_loss_finite() -> None:
    """The authors' logarithm of a probability of 0 is not."""
    student = np.where(np.arange(6) == LABELS[:, None], 2000.0, -2000.0)
    check = check_of(DECOUPLED, student, normal(1), LABELS)
    with np.errstate(divide="ignore"):
        traced = Traced(check.program, np.float32)
    found = traced.with_gradients(("bottom0",))
    model = traced.model(traced.outputs | {"d": found["bottom0"]})
    arrays = {**check.program.arrays, "seed/top0": np.array(1.0)}
    assert all(np.all(np.isfinite(value)) for value in onnxruntime_run(model, arrays).values())


def test_decoupled_with_the_coupling_restored_is_the_divergence() -> None:
    """KL = TCKD + (1 − p[y]) · NCKD, equation 6 of the paper: here for one item."""
    student, teacher, label = normal(1, (1, 6)), normal(2, (1, 6)), np.array([2.0])
    rest = float(1 - oracle.softmax(teacher / 4)[0, 2])
    field = "decoupled_knowledge_distillation_param"
    parts = [
        value_of(f"{DECOUPLED} {field} {{ alpha: {a} beta: {b} }}", student, teacher, label)
        for a, b in ((1, 0), (0, 1))
    ]
    whole = value_of(f"{SOFT} {FIELD} {{ divergence: KL temperature: 4 }}", student, teacher)
    assert parts[0] + rest * parts[1] == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", ["decoupled", "weighted", "smoothing"])
def test_labels_are_announced_at_the_bottom_that_holds_them(name: str) -> None:
    smoothing = 'type: "LabelSmoothingCrossEntropy"'
    text = f"{TWINS.get(name, smoothing)} loss_param {{ ignore_label: 7 }}"
    count = 3 if name in LABELLED else 2
    g = Emitter()
    shapes = [SHAPE] * (count - 1) + [(5,)]
    given = {f"bottom{i}": g.input(f"bottom{i}", shape) for i, shape in enumerate(shapes)}
    (check,) = emitted(g, layer_model(text, "TRAIN", count, 1), given).layer.trace.labels
    assert check.tensor is given[f"bottom{count - 1}"]
    assert (check.classes, check.ignore) == (6, 7)
    # The text has a line for its name, then one for each bottom.
    assert check.span is not None
    assert check.span.line == 1 + count


def test_the_share_up_to_the_median_counts_ties() -> None:
    text = 'type: "MultiLevelLogitDistillation"'
    field = "multi_level_logit_distillation_param"
    only = "instance_weight: {} batch_weight: 0 class_weight: {} temperature: 1"
    teacher = np.log(np.array([[6, 2, 2], [2, 6, 2], [2, 6, 2], [4, 3, 3.0]]))
    student = normal(1, (4, 3))
    for weights, share in (((1, 0), 1.0), ((0, 1), 2 / 3)):
        plain = only.format(*weights)
        bare = value_of(f"{text} {field} {{ {plain} }}", student, teacher)
        masked = f"{text} {field} {{ {plain} confidence_mask: true }}"
        assert value_of(masked, student, teacher) == pytest.approx(share * bare, rel=1e-9)


def test_the_trained_temperature_climbs_as_fast_as_it_is_told() -> None:
    field = "curriculum_temperature_distillation_param"
    slopes = []
    for reversal in (0, 0.5, 1):
        text = f"{TWINS['temperature']} {field} {{ reversal: {reversal} }}"
        check = check_of(text, normal(1), normal(2), wrt=("bottom0", "weight0"))
        slopes.append(check.gradient("weight0") / check.seeds["seed/top0"])
    ahead, behind = (
        float(oracle.curriculum_temperature(normal(1), normal(2), np.ones(1) + step))
        for step in (1e-4, -1e-4)
    )
    wanted = (ahead - behind) / 2e-4
    assert [float(s[0]) for s in slopes] == pytest.approx([0, -wanted / 2, -wanted], rel=1e-5)


def test_weights_of_soft_labels_are_constants() -> None:
    """The gradient is that of a cross entropy with each item's weight held."""
    student, teacher = normal(1), normal(2)
    found = slope_of(TWINS["weighted"], student, teacher, LABELS)
    at = np.arange(5), LABELS.astype(int)
    gains = [np.log(oracle.softmax(z))[at] for z in (student, teacher)]
    weight = 1 - np.exp(-gains[0] / (gains[1] - 1e-7))
    q, p = oracle.softmax(student / 2), oracle.softmax(teacher / 2)
    np.testing.assert_allclose(found, 2 / 5 * weight[:, None] * (q - p), atol=1e-12)


def test_soft_labels_without_options_are_sigmoid_cross_entropy() -> None:
    target = np.random.default_rng(1).uniform(0, 1, SHAPE)
    stock = 'type: "SigmoidCrossEntropyLoss" loss_param { normalization: FULL }'
    soft = 'type: "SoftLabelSigmoidCrossEntropy"'
    for measure in (value_of, slope_of):
        np.testing.assert_allclose(
            measure(soft, normal(1), target), measure(stock, normal(1), target), rtol=1e-12
        )


def test_an_unlabelled_head_gets_no_gradient() -> None:
    target = positive(np.random.default_rng(1), SHAPE) / 2
    target[:, 2] = -1
    text = 'type: "SoftLabelSigmoidCrossEntropy"'
    slope = slope_of(f"{text} loss_param {{ normalization: NONE }}", normal(1), target)
    assert np.all(slope[:, 2] == 0)
    assert np.all(slope[:, [0, 1, 3, 4, 5]] != 0)


SCHEDULED = [
    (SOFT, FIELD, "temperature", "", 2),
    (SOFT, FIELD, "temperature", "divergence: JS standardize: true", 2),
    (SOFT, FIELD, "temperature", "teacher: PROBABILITIES", 2),
    (DECOUPLED, "decoupled_knowledge_distillation_param", "temperature", "", 3),
    (DECOUPLED, "decoupled_knowledge_distillation_param", "alpha", "", 3),
    (DECOUPLED, "decoupled_knowledge_distillation_param", "beta", "", 3),
    ('type: "DIST"', "dist_param", "beta", "", 2),
    ('type: "DIST"', "dist_param", "gamma", "", 2),
    ('type: "DIST"', "dist_param", "temperature", "", 2),
    (TWINS["levels"], "multi_level_logit_distillation_param", "instance_weight", "", 2),
    (TWINS["levels"], "multi_level_logit_distillation_param", "batch_weight", "", 2),
    (TWINS["levels"], "multi_level_logit_distillation_param", "class_weight", "", 2),
    (TWINS["weighted"], "weighted_soft_label_distillation_param", "temperature", "", 3),
    (TWINS["temperature"], "curriculum_temperature_distillation_param", "minimum", "", 2),
    (TWINS["temperature"], "curriculum_temperature_distillation_param", "range", "", 2),
    (TWINS["temperature"], "curriculum_temperature_distillation_param", "reversal", "", 2),
    (
        'type: "SoftLabelSigmoidCrossEntropy"',
        "soft_label_sigmoid_cross_entropy_param",
        "temperature",
        "",
        2,
    ),
    (
        'type: "TeacherFreeKnowledgeDistillation"',
        "teacher_free_knowledge_distillation_param",
        "temperature",
        "",
        2,
    ),
]


def bottoms_of(text: str, more: str, count: int) -> list[np.ndarray]:
    if "TeacherFree" in text:
        return [normal(1), LABELS]
    bounded = "PROBABILITIES" in more or "Sigmoid" in text
    second = oracle.softmax(normal(2)) if bounded else normal(2)
    return [normal(1), second, LABELS][:count]


@pytest.mark.parametrize(
    ("text", "field", "name", "more", "count"),
    SCHEDULED,
    ids=[f"{row[0].split(chr(34))[1]}-{row[2]}-{i}" for i, row in enumerate(SCHEDULED)],
)
def test_a_scheduled_number_is_an_input_that_means_the_same(
    text: str, field: str, name: str, more: str, count: int
) -> None:
    bottoms = bottoms_of(text, more, count)
    moved = f"{text} {field} {{ {more} }}"

    def scheduled(g: Emitter, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        model = layer_model(moved, "TRAIN", count, 1)
        pair = ("layer", name)
        trace = Trace(scheduled=frozenset({pair}), scalars={pair: given["scalar"]})
        weights = [given["weight0"]] if "weight0" in given else []
        top: Any = layer_class(model)(model, trace).emit(
            g, *(given[bottom] for bottom in model.bottoms), *weights
        )
        return {"top0": top}

    fixed = check_of(f"{text} {field} {{ {more} {name}: 2.5 }}", *bottoms)
    arrays = {**fixed.program.arrays, "scalar": np.array(2.5)}
    moving = Check(Program(scheduled, arrays, ("bottom0",)))
    assert relative_error(moving.forward()["top0"], fixed.forward()["top0"]) < 1e-12
    assert relative_error(moving.gradient("bottom0"), fixed.gradient("bottom0")) < 1e-12
    assert (
        value_of(moved, *bottoms) != pytest.approx(float(fixed.forward()["top0"]), rel=1e-6)
        or name == "reversal"
    )
