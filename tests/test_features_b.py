"""The heavier feature losses: the authors' numbers, shared statistics, memories, phases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import oracles_features_b as oracle
import pytest
from gradcheck import Program, Traced, onnxruntime_run, reference
from layer_programs import declared_weights, emitted, layer_model
from small_nets import edit, ok, run, said

from kdnet.autodiff import gradients
from kdnet.errors import LayerError
from kdnet.graph import Emitter
from kdnet.layers import Trace, layer_class
from kdnet.weights import LayerBlobs, philox, read_weights, write_caffemodel

GOLDEN = Path(__file__).parent / "golden" / "distillation" / "features_b.npz"
RELATIVE = 1e-5
# A bias before batch normalisation has no gradient but rounding.
ROUNDING = 1e-12

Array = np.ndarray
Arrays = Mapping[str, Array]


@cache
def golden() -> dict[str, dict[str, Array]]:
    """The arrays of each case by name."""
    found: dict[str, dict[str, Array]] = {}
    with np.load(GOLDEN) as archive:
        for key in archive.files:
            case_id, _, name = key.rpartition("/")
            found.setdefault(case_id, {})[name] = archive[key]
    return found


def numbered(case: Arrays, prefix: str, name: str) -> dict[str, Array]:
    """The arrays ``prefix0``, ... under ``name0``, ..."""
    ends = {key: key.removeprefix(prefix) for key in case if key.startswith(prefix)}
    return {f"{name}{end}": case[key] for key, end in ends.items() if end.isdigit()}


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("case_id", sorted(golden()))
def test_values_and_gradients_are_those_of_the_authors_code(case_id: str, kind: str) -> None:
    case = golden()[case_id]
    tops = numbered(case, "top", "top")
    wanted = numbered(case, "bottomdiff", "d/bottom") | numbered(case, "paramdiff", "d/weight")
    wrt = tuple(name.removeprefix("d/") for name in wanted)
    bottoms = numbered(case, "bottom", "bottom")
    model = layer_model(str(case["prototxt"]), "TRAIN", len(bottoms), len(tops))
    held = bottoms | numbered(case, "param", "weight")
    arrays = {name: value.astype(np.float64) for name, value in held.items()}
    # Paraphraser's second top is the one whose gradients are told where it is told first.
    seeded = "top1" if case_id == "Paraphraser/rebuilt" else "top0"
    program = Program(
        lambda g, given: emitted(g, model, given).outputs(), arrays, wrt, gradient_of=(seeded,)
    )
    traced = Traced(program, np.dtype(kind))
    slopes = {f"d/{name}": t for name, t in traced.with_gradients(wrt).items()}
    made = traced.model({**traced.outputs, **slopes})
    feeds = {**arrays, f"seed/{seeded}": np.ones(traced.outputs[seeded].shape)}
    found = onnxruntime_run(made, feeds) if kind == "float32" else reference(made)(feeds)
    if seeded == "top1":
        tops = {"top0": tops["top1"], "top1": tops["top0"]}
    for name, value in {**tops, **numbered(case, "next", "next"), **wanted}.items():
        size = np.max(np.abs(value))
        allowed = RELATIVE * size if size > ROUNDING else 1e-5
        error = np.max(np.abs(found[name] - value.reshape(found[name].shape)))
        assert error <= allowed, (name, error / size)


def test_every_layer_has_numbers_of_its_authors() -> None:
    assert {case_id.partition("/")[0] for case_id in golden()} == {
        "ActivationBoundary",
        "ChannelWiseDistillation",
        "ContrastiveRepresentation",
        "FactorTransfer",
        "FeatureOverhaul",
        "KnowledgeReview",
        "Paraphraser",
    }


MAPS = (3, 4, 2, 2)
PAIRS = {
    "ActivationBoundary": "",
    "ChannelWiseDistillation": "",
    "ContrastiveRepresentation": "contrastive_representation_param { num_records: 9 nce_k: 4 }",
    "FactorTransfer": "",
    "FeatureOverhaul": "",
    "KnowledgeReview": "",
}


SCHEDULED = {
    "ActivationBoundary": ["margin"],
    "ChannelWiseDistillation": ["temperature"],
    "ContrastiveRepresentation": ["temperature", "momentum"],
}


@pytest.mark.parametrize("name", PAIRS)
def test_teachers_get_no_gradient_and_numbers_can_be_scheduled(name: str) -> None:
    model = layer_model(f'type: "{name}" {PAIRS[name]}', "TRAIN", 2, 1)
    g = Emitter()
    given = {f"bottom{i}": g.input(f"bottom{i}", MAPS) for i in range(2)}
    for i, weight in enumerate(declared_weights(model, [MAPS, MAPS])):
        given[f"weight{i}"] = g.input(f"weight{i}", weight.shape)
    found = emitted(g, model, given)
    wanted = [given["bottom0"], given["bottom1"]]
    assert list(gradients(g, [(found.tops[0], g.constant(1.0))], wanted)) == wanted[:1]
    assert found.layer.trace.asked.get("layer", []) == SCHEDULED.get(name, [])


def loss_of(text: str, *bottoms: Array) -> tuple[Array, Array]:
    """The value of a loss and its gradient by the student."""
    model = layer_model(text, "TRAIN", len(bottoms), 1)
    arrays = {f"bottom{i}": x for i, x in enumerate(bottoms)}
    traced = Traced(Program(lambda g, given: emitted(g, model, given).outputs(), arrays))
    slope = traced.with_gradients(("bottom0",))["bottom0"]
    found = reference(traced.model({**traced.outputs, "slope": slope}))
    values = found({**arrays, "seed/top0": np.ones(())})
    return values["top0"], values["slope"]


@pytest.mark.parametrize(
    "text",
    [
        'type: "ChannelWiseDistillation"',
        'type: "FactorTransfer" factor_transfer_param { translator: NONE power: 2 }',
        'type: "FeatureOverhaul" feature_overhaul_param { projector { type: NONE } margin: -9 }',
    ],
)
def test_equal_features_have_no_loss_and_no_gradient(text: str) -> None:
    x = np.random.default_rng(1).standard_normal(MAPS)
    value, slope = loss_of(text, x, x)
    assert abs(value) < 1e-15
    assert np.max(np.abs(slope)) < 1e-15


def test_a_student_beyond_the_margin_on_the_teacher_s_side_has_no_loss() -> None:
    teacher = np.random.default_rng(1).standard_normal(MAPS)
    student = np.sign(teacher) * (1 + np.abs(teacher))
    value, slope = loss_of('type: "ActivationBoundary"', student, teacher)
    assert value == 0
    assert not slope.any()


def test_a_dead_teacher_channel_has_a_margin() -> None:
    teacher = np.abs(np.random.default_rng(1).standard_normal(MAPS))
    text = 'type: "FeatureOverhaul" feature_overhaul_param { projector { type: NONE } }'
    value, slope = loss_of(text, teacher + 1, teacher)
    np.testing.assert_allclose([value, slope.min()], [teacher[0].size, 2 / 3])


def test_the_student_s_half_comes_first() -> None:
    model = layer_model('type: "KnowledgeReview"', "TRAIN", 6, 1)
    layer = layer_class(model)(model, Trace())
    assert [layer.role(i) for i in range(6)] == ["student"] * 3 + ["teacher"] * 3


def test_the_largest_noise_is_the_last_record() -> None:
    records = np.concatenate([np.arange(1, 1 << 16), (1 << 24) - np.arange(1 << 16)])
    largest = np.nextafter(np.float32(1), np.float32(0)) * records.astype(np.float32)
    assert np.array_equal(largest.astype(np.int64), records - 1)


def test_memories_have_no_place_in_a_test_net() -> None:
    text = f'type: "ContrastiveRepresentation" {PAIRS["ContrastiveRepresentation"]}'
    model = layer_model(text, "TEST", 2, 1)
    g = Emitter()
    with pytest.raises(LayerError, match="training-only"):
        layer_class(model)(model, Trace()).check(*[g.input("x", MAPS)] * 2)


HDF5 = """
layer {
  name: "digits" type: "HDF5Data" top: "data" top: "target" top: "record"
  hdf5_data_param { source: "digits.txt" batch_size: 4 }
}
layer { name: "teacher" type: "InnerProduct" bottom: "data" top: "teacher"
  param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param { num_output: 3 }
}
layer {
  name: "student" type: "InnerProduct" bottom: "data" top: "student"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } }
}
layer {
  name: "contrast" type: "ContrastiveRepresentation"
  bottom: "student" bottom: "teacher" bottom: "record" top: "contrast" loss_weight: 0.8
  contrastive_representation_param { num_records: 10 nce_k: 7 dim: 4 }
}
layer { name: "silence" type: "Silence" bottom: "target" }
"""
STEPS = """
net: "contrast.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 6
display: 1 snapshot: 1 snapshot_prefix: "run" random_seed: 5
"""
RECORDS, BATCH, NEGATIVES, STATE = 10, 4, 7, 4
TRAIN = ("train", "contrast_solver.prototxt", "--weights", "teacher.npz", "--device", "cpu")


@pytest.fixture
def contrast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data that numbers its records, a teacher and a net."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    with h5py.File("digits.h5", "w") as file:
        file["data"] = rng.standard_normal((RECORDS, 6)).astype(np.float32)
        file["target"] = np.zeros(RECORDS, np.float32)
        file["record"] = np.arange(RECORDS, dtype=np.float32)
    Path("digits.txt").write_text("digits.h5\n")
    blobs = (rng.standard_normal((3, 6)).astype(np.float32), np.zeros(3, np.float32))
    write_caffemodel(Path("teacher.npz"), [LayerBlobs("teacher", "InnerProduct", blobs)])
    Path("contrast.prototxt").write_text(HDF5)
    Path("contrast_solver.prototxt").write_text(STEPS)
    return tmp_path


def blobs_of(path: str, layer: str) -> list[Array]:
    """A layer's blobs in a weight file."""
    found = {item.name: item.blobs for item in read_weights(path).layers}
    return [np.asarray(blob, np.float64) for blob in found[layer]]


def features(iteration: int, layer: list[Array]) -> Array:
    """What an inner product makes of a batch, which goes round after the last record."""
    with h5py.File("digits.h5") as file:
        data = np.asarray(file["data"], np.float64)
    return data[own_records(iteration)] @ layer[0].T + layer[1]


def own_records(iteration: int) -> Array:
    return (iteration * BATCH + np.arange(BATCH)) % RECORDS


@pytest.mark.usefixtures("contrast")
def test_the_memories_of_a_run_are_those_of_the_formula() -> None:
    ended = ok(*TRAIN)
    shown = [float(m[1]) for m in re.finditer(r"contrast = (\S+) \(", ended.err)]
    teacher = blobs_of("teacher.npz", "teacher")
    for after in range(2, 7):
        student = blobs_of(f"run_iter_{after - 1}.caffemodel", "student")
        known = blobs_of(f"run_iter_{after - 1}.caffemodel", "contrast")
        noise = philox(5, "noise", "contrast", after - 1, 0).random((BATCH, NEGATIVES), np.float32)
        s, t = features(after - 1, student), features(after - 1, teacher)
        wanted = oracle.contrast(s, t, own_records(after - 1), *known, noise=noise)
        found = blobs_of(f"run_iter_{after}.caffemodel", "contrast")[STATE:]
        np.testing.assert_allclose(shown[after - 1], wanted[0], rtol=1e-4)
        for blob, value in zip(found, wanted[1:], strict=True):
            np.testing.assert_allclose(blob, value, rtol=1e-5, atol=1e-6)
        untouched = np.setdiff1d(np.arange(RECORDS), own_records(after - 1))
        assert np.array_equal(found[0][untouched], known[STATE][untouched])
        assert not np.allclose(found[0], known[STATE])


@pytest.mark.usefixtures("contrast")
def test_the_normalisers_are_set_by_the_first_batch_and_stay() -> None:
    ok(*TRAIN)
    first, *later = (blobs_of(f"run_iter_{k}.caffemodel", "contrast")[-1] for k in (1, 2, 6))
    assert (first > 0).all()
    assert all(np.array_equal(first, constants) for constants in later)


def test_a_resumed_run_has_the_same_memories(contrast: Path) -> None:
    ok(*TRAIN, "--out", "straight")
    ok(*TRAIN, "--out", "halved", "--max-iter", 3)
    ok(*TRAIN, "--out", "halved", "--snapshot", "halved/run_iter_3.solverstate")
    files = [contrast / folder / "run_iter_6.caffemodel" for folder in ("straight", "halved")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("iter_size", [1, 2])
def test_records_are_counted_where_the_data_does_not_number_them(
    contrast: Path, iter_size: int
) -> None:
    edit(
        contrast / "contrast_solver.prototxt", "max_iter: 6", f"max_iter: 6 iter_size: {iter_size}"
    )
    ok(*TRAIN, "--out", "numbered")
    net = contrast / "contrast.prototxt"
    edit(net, 'bottom: "record" top', "top")
    edit(net, 'bottom: "target" }', 'bottom: "target" bottom: "record" }')
    ok(*TRAIN, "--out", "counted")
    one = blobs_of("numbered/run_iter_6.caffemodel", "contrast")
    other = blobs_of("counted/run_iter_6.caffemodel", "contrast")
    assert other.pop() == 6 * iter_size * BATCH % RECORDS
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_a_record_number_that_is_none_is_refused(contrast: Path) -> None:
    edit(contrast / "contrast.prototxt", "num_records: 10", "num_records: 9")
    ended = run(*TRAIN)
    assert ended.code == 1
    assert "record 9 of batch 2, item 1, is not one of the 9 records 0 to 8" in ended.faults
    assert "num_records must be the number of records" in ended.faults


FACTOR = """
layer { name: "digits" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 4 dim: 2 dim: 3 dim: 3 } data_filler { type: "gaussian" } }
}
layer {
  name: "teacher" type: "Convolution" bottom: "data" top: "teacher"
  param { lr_mult: 0 } param { lr_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "constant" value: 0.5 }
    bias_filler { type: "constant" } }
}
"""
FIRST = """
layer { name: "paraphraser" type: "Paraphraser" bottom: "teacher" top: "factor" top: "rebuilt" }
layer { name: "rebuild" type: "EuclideanLoss" bottom: "rebuilt" bottom: "teacher" top: "rebuild" }
layer { name: "silence" type: "Silence" bottom: "factor" }
"""
SECOND = """
layer { name: "paraphraser" type: "Paraphraser" bottom: "teacher" top: "factor" FROZEN }
layer {
  name: "student" type: "Convolution" bottom: "data" top: "student"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } }
}
layer { name: "transfer" type: "FactorTransfer" bottom: "student" bottom: "factor" top: "far" }
"""


def test_a_paraphraser_is_trained_first_and_then_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frozen = " ".join(["param { lr_mult: 0 }"] * 12)
    for name, text in (("first", FIRST), ("second", SECOND.replace("FROZEN", frozen))):
        Path(f"{name}.prototxt").write_text(FACTOR + text)
        solver = (
            f'net: "{name}.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 60 display: 59'
        )
        Path(f"{name}_solver.prototxt").write_text(f'{solver} snapshot_prefix: "{name}"')
    ended = ok("train", "first_solver.prototxt", "--device", "cpu")
    losses = [float(m[1]) for m in re.finditer(r"Iteration \d+.*loss = (\S+)", ended.err)]
    assert losses[-1] < losses[0]
    alone = run("train", "second_solver.prototxt", "--device", "cpu")
    assert 'frozen layer "paraphraser" was filled by no file' in alone.faults
    weights = ("--weights", "first_iter_60.caffemodel")
    ended = ok("train", "second_solver.prototxt", *weights, "--device", "cpu")
    assert said(ended, "paraphraser +loaded, frozen +12")
    kept = {layer.name for layer in read_weights("second_iter_60.caffemodel").layers}
    assert kept == {"student", "transfer"}


NORMED = """
layer { name: "digits" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } }
}
layer {
  name: "scale" type: "Scale" bottom: "data" top: "teacher"
  param { name: "gamma" lr_mult: 0 } param { name: "beta" lr_mult: 0 }
  scale_param { bias_term: true }
}
layer {
  name: "student" type: "InnerProduct" bottom: "data" top: "student"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer {
  name: "overhaul" type: "FeatureOverhaul" bottom: "student" bottom: "teacher" top: "overhaul"
  param {} param {} param {} param { name: "gamma" } param { name: "beta" }
  feature_overhaul_param { batch_norm_margin: true }
}
"""


def test_margins_come_from_the_teacher_s_own_scale_and_shift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NORMED)
    Path("net_solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 1 display: 1 random_seed: 1'
    )
    losses = []
    for shift in (0.0, -0.5):
        blobs = (np.ones(3, np.float32), np.full(3, shift, np.float32))
        write_caffemodel(Path("t.caffemodel"), [LayerBlobs("scale", "Scale", blobs)])
        ended = ok("train", "net_solver.prototxt", "--weights", "t.caffemodel", "--device", "cpu")
        losses.append(re.search(r"overhaul = (\S+)", ended.err)[1])
    assert losses[0] != losses[1]
    edit(Path("net.prototxt"), 'name: "gamma" }', 'name: "alone" }')
    ended = run("train", "net_solver.prototxt", "--weights", "t.caffemodel", "--device", "cpu")
    assert ended.code == 1
    assert 'blob 3 is another layer\'s, but no earlier layer shares "alone"' in ended.faults
    edit(Path("net.prototxt"), '{ name: "alone" } param { name: "beta" }', "{} param {}")
    ended = run("train", "net_solver.prototxt", "--weights", "t.caffemodel", "--device", "cpu")
    assert "blob 3 is another layer's, but its param has no name to share" in ended.faults
    assert "[not-shared]" in ended.faults
