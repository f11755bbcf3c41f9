"""Feature losses: the authors' numbers, still points, degenerate features, projectors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gradcheck import Program, Traced, onnxruntime_run
from layer_programs import declared_weights, emitted, layer_model

from kdnet.layers import Trace, layer_class
from kdnet.net import LayerModel

GOLDEN = Path(__file__).parent / "golden" / "distillation" / "features.npz"
RELATIVE = 1e-5
ROUNDING = 1e-12

Array = np.ndarray
Arrays = Mapping[str, Array]

# Every loss of features that are compared as they are, so that equal ones are a minimum.
STILL = {
    "AttentionTransfer": "",
    "CorrelationCongruence": "",
    "CorrelationCongruence/gaussian": "correlation_congruence_param { kernel: GAUSSIAN }",
    "CosineDistance": "",
    "Hint": "",
    "L2Distance": "",
    "L2Distance/distance": "l2_distance_param { squared: false }",
    "L2Distance/normalize": "l2_distance_param { normalize: true }",
    "NeuronSelectivity": "",
    "ProbabilisticKnowledgeTransfer": "",
    "RelationalAngle": "",
    "RelationalDistance": "",
    "SimilarityPreserving": "",
}


@cache
def golden() -> dict[str, dict[str, Array]]:
    """The arrays of each case by name."""
    found: dict[str, dict[str, Array]] = {}
    with np.load(GOLDEN) as archive:
        for key in archive.files:
            case_id, _, name = key.rpartition("/")
            found.setdefault(case_id, {})[name] = archive[key]
    return found


def model_of_type(name: str, text: str, bottoms: int = 2) -> LayerModel:
    """A layer of the type before the slash."""
    return layer_model(f'type: "{name.partition("/")[0]}" {text}', "TRAIN", bottoms, 1)


def run(
    name: str, text: str, arrays: Arrays, wrt: tuple[str, ...] = ("bottom0",)
) -> dict[str, Array]:
    """The loss and its gradients, in float32 on ONNX Runtime."""
    model = model_of_type(name, text, sum(key.startswith("bottom") for key in arrays))
    program = Program(lambda g, given: emitted(g, model, given).outputs(), arrays, wrt)
    traced = Traced(program, np.float32)
    gradients = {f"d/{key}": t for key, t in traced.with_gradients(wrt).items()}
    made = traced.model({**traced.outputs, **gradients})
    return onnxruntime_run(made, {**arrays, "seed/top0": np.ones(())})


def numbered(case: Arrays, prefix: str, name: str) -> dict[str, Array]:
    """The arrays ``prefix0``, ... under ``name0``, ..."""
    ends = {key: key.removeprefix(prefix) for key in case if key.startswith(prefix)}
    return {f"{name}{end}": case[key] for key, end in ends.items() if end.isdigit()}


@pytest.mark.parametrize("case_id", sorted(golden()))
def test_values_and_gradients_are_those_of_the_authors_code(case_id: str) -> None:
    case = golden()[case_id]
    arrays = numbered(case, "bottom", "bottom") | numbered(case, "param", "weight")
    wanted = numbered(case, "bottomdiff", "d/bottom") | numbered(case, "paramdiff", "d/weight")
    wrt = tuple(name.removeprefix("d/") for name in wanted)
    found = run(case_id, str(case["prototxt"]), arrays, wrt)
    for name, value in {"top0": case["loss"], **wanted}.items():
        assert found[name].shape == value.shape, name
        size = np.max(np.abs(value))
        # A bias before batch normalisation has no gradient but rounding.
        allowed = RELATIVE * size if size > ROUNDING else 1e-7
        assert np.max(np.abs(found[name] - value)) <= allowed, name


def test_every_feature_loss_has_numbers_of_its_authors() -> None:
    assert {case_id.partition("/")[0] for case_id in golden()} == {
        *(name.partition("/")[0] for name in STILL),
        "FlowMatrix",
        "VariationalInformation",
    }


def maps(seed: int = 0, shape: tuple[int, ...] = (4, 3, 3, 3)) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", STILL)
def test_equal_features_have_no_loss_and_no_gradient(name: str) -> None:
    found = run(name, STILL[name], {"bottom0": maps(), "bottom1": maps()})
    other = run(name, STILL[name], {"bottom0": maps(), "bottom1": maps(1)})
    assert abs(found["top0"]) < 1e-6 < 1e-3 * other["top0"]
    assert np.max(np.abs(found["d/bottom0"])) < 1e-3 * np.max(np.abs(other["d/bottom0"]))


def test_equal_flows_have_no_loss_and_no_gradient() -> None:
    nets = [maps(), maps(1, (4, 2, 2, 2))] * 2
    arrays = {f"bottom{i}": x for i, x in enumerate(nets)}
    found = run("FlowMatrix", "", arrays, ("bottom0", "bottom1"))
    assert set(found) == {"top0", "d/bottom0", "d/bottom1"}
    assert not any(value.any() for value in found.values())


def spoilt(kind: str) -> Array:
    """Features as a student has them whose units are dead, or whose items are all one."""
    x = maps()
    if kind == "an item of zeros":
        x[1] = 0
    elif kind == "a channel of zeros":
        x[:, 1] = 0
    elif kind == "zeros":
        x[:] = 0
    elif kind == "two equal items":
        x[2] = x[1]
    elif kind == "equal items":
        x[:] = x[0]
    elif kind == "tiny":
        x *= 1e-20
    return x


KINDS = (
    "a channel of zeros",
    "an item of zeros",
    "equal items",
    "tiny",
    "two equal items",
    "zeros",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STILL)
def test_degenerate_features_have_finite_gradients(name: str, kind: str) -> None:
    for pair in ((spoilt(kind), maps(1)), (maps(1), spoilt(kind)), (spoilt(kind), spoilt(kind))):
        arrays = dict(zip(("bottom0", "bottom1"), pair, strict=True))
        found = run(name, STILL[name], arrays)
        assert np.isfinite(found["top0"])
        assert np.isfinite(found["d/bottom0"]).all()


@pytest.mark.parametrize("name", [*STILL, "VariationalInformation"])
def test_the_teacher_gets_no_gradient(name: str) -> None:
    model = model_of_type(name, STILL.get(name, ""))
    weights = declared_weights(model, [(4, 3, 3, 3)] * 2)
    arrays = {"bottom0": maps(), "bottom1": maps(1)}
    arrays |= {f"weight{i}": maps(2 + i, w.shape) for i, w in enumerate(weights)}
    found = run(name, STILL.get(name, ""), arrays, ("bottom0", "bottom1"))
    assert set(found) == {"top0", "d/bottom0"}


def test_roles_tell_student_from_teacher() -> None:
    def roles(type_name: str, count: int) -> list[str]:
        model = model_of_type(type_name, "", count)
        layer = layer_class(model)
        return [layer.role(layer(model, Trace()), i) for i in range(count)]

    assert roles("Hint", 2) == ["student", "teacher"]
    assert roles("FlowMatrix", 4) == ["student", "student", "teacher", "teacher"]


def blobs(text: str, *shapes: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], str]]:
    model = model_of_type("Hint", f"hint_param {{ {text} }}")
    found = declared_weights(model, list(shapes))
    return [(weight.name, weight.shape, weight.filler.type) for weight in found]


def test_a_projector_comes_where_channels_differ() -> None:
    uneven = ((2, 3, 4, 4), (2, 5, 4, 4))
    assert blobs("", (2, 3, 4, 4), (2, 3, 2, 2)) == []
    assert blobs("", *uneven) == [
        ("projector/weight", (5, 3, 1, 1), "xavier"),
        ("projector/bias", (5,), "constant"),
    ]
    assert blobs("projector { bias_term: false }", (2, 3), (2, 5, 1, 1)) == [
        ("projector/weight", (5, 3), "xavier")
    ]
    text = 'projector { relu: true batch_norm: true weight_filler { type: "gaussian" } }'
    assert blobs(text, *uneven) == [
        ("projector/weight", (5, 3, 1, 1), "gaussian"),
        ("projector/bias", (5,), "constant"),
        ("projector/scale", (5,), "constant"),
        ("projector/shift", (5,), "constant"),
    ]
    assert blobs("projector { relu: true }", *uneven)[0][2] == "msra"


def test_the_first_variance_of_vid_is_the_one_asked_for() -> None:
    for asked in (0.5, 5.0, 1000.0):
        text = f"variational_information_param {{ initial_variance: {asked} }}"
        model = model_of_type("VariationalInformation", text)
        scale = declared_weights(model, [(2, 3), (2, 4)])[-1].filler.value
        assert np.logaddexp(0, scale) + 1e-5 == pytest.approx(asked, rel=1e-6)


@pytest.mark.parametrize("name", ["RelationalAngle", "RelationalDistance"])
def test_relations_do_not_drown_in_what_all_items_share(name: str) -> None:
    pair = {"bottom0": maps(0, (6, 5)), "bottom1": maps(1, (6, 4))}
    # Powers of 2, so that the sums lose no digit.
    shared = {key: np.round(x * 1024) / 1024 + np.float32(512) for key, x in pair.items()}
    plain = {key: x - np.float32(512) for key, x in shared.items()}
    far, near = run(name, "", shared), run(name, "", plain)
    for key, value in near.items():
        assert np.max(np.abs(far[key] - value)) <= 1e-4 * np.max(np.abs(value)), key
