"""Layers of Caffe's forks: their numbers, what their nets write, and their weight files."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from gradcheck import Check, Program, Traced, onnxruntime_run, reference
from layer_programs import declared_weights, emitted, layer_model
from small_nets import ok, run

from kdnet.errors import SchemaError
from kdnet.graph import Emitter, Tensor
from kdnet.layers import layer_types
from kdnet.layers.registry import class_of_type
from kdnet.net import LayerModel
from kdnet.schema import read_net
from kdnet.schema.forks import FORK_FIELDS
from kdnet.weights import read_weights
from kdnet.weights.audit import same_shape
from kdnet.weights.upgrading import upgrade_net_file

GOLDEN = Path(__file__).parent / "golden" / "forks" / "forks.npz"
EXACT, RELATIVE = 1e-9, 1e-5

Arrays = dict[str, np.ndarray]


@cache
def golden() -> dict[str, Arrays]:
    with zipfile.ZipFile(GOLDEN) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    found: dict[str, Arrays] = {}
    with np.load(GOLDEN) as arrays:
        for name in names:
            case, _, key = name.rpartition("/")
            found.setdefault(case, {})[key] = arrays[name]
    return found


def numbered(numbers: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays named ``prefix`` and a number, by that number."""
    ends = {name: name.removeprefix(prefix) for name in numbers if name.startswith(prefix)}
    return {end: numbers[name] for name, end in ends.items() if end.isdigit()}


def build(model: LayerModel, g: Emitter, given: dict[str, Tensor]) -> dict[str, Tensor]:
    return emitted(g, model, given).outputs()


def golden_program(case: str) -> tuple[Program, Arrays, Arrays]:
    """The layer on the fork's inputs, the gradients that arrive, and what it must make of them."""
    numbers = golden()[case]
    bottoms, params = numbered(numbers, "bottom"), numbered(numbers, "param")
    tops = numbered(numbers, "top")
    model = layer_model(str(numbers["prototxt"]), str(numbers["phase"]), len(bottoms), len(tops))
    shapes = [
        weight.shape for weight in declared_weights(model, [x.shape for x in bottoms.values()])
    ]
    assert shapes == [array.shape for array in params.values()]
    arrays = {f"bottom{i}": x for i, x in bottoms.items()}
    arrays |= {f"weight{i}": x for i, x in params.items()}
    expected = {f"top{i}": x for i, x in tops.items()}
    expected |= {f"d/bottom{i}": x for i, x in numbered(numbers, "bottomdiff").items()}
    expected |= {f"d/weight{i}": x for i, x in numbered(numbers, "paramdiff").items()}
    wrt = tuple(name.removeprefix("d/") for name in expected if name.startswith("d/"))
    expected |= {f"next{int(i) - 2}": x for i, x in numbered(numbers, "next").items()}
    seeds = {f"seed/top{i}": x for i, x in numbered(numbers, "topdiff").items()}
    of_tops = tuple(f"top{i}" for i in tops)
    return Program(partial(build, model), arrays, wrt, gradient_of=of_tops), seeds, expected


def compare(results: Arrays, expected: Arrays, allowed: float) -> None:
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        error = np.max(np.abs(results[name] - value)) / np.max(np.abs(value))
        assert error <= allowed, f"{name}: off by {error:.1e}"


@pytest.mark.parametrize("case", golden())
def test_values_and_gradients_are_the_fork_s(case: str) -> None:
    program, seeds, expected = golden_program(case)
    results = reference(Check(program).model)({**program.arrays, **seeds})
    assert set(results) == set(expected)
    compare(results, expected, EXACT)


@pytest.mark.parametrize("case", golden())
def test_in_float32_they_are_the_fork_s_too(case: str) -> None:
    program, seeds, expected = golden_program(case)
    traced = Traced(program, np.float32)
    found = {f"d/{name}": t for name, t in traced.with_gradients(program.wrt).items()}
    model = traced.model(traced.outputs | found)
    compare(onnxruntime_run(model, {**program.arrays, **seeds}), expected, RELATIVE)


def test_every_layer_of_a_fork_has_its_numbers() -> None:
    forks = {name for name in layer_types() if ".forks." in class_of_type(name).__module__}
    assert forks == {case.split("/")[0] for case in golden()}


@pytest.mark.parametrize("case", ["t4", "t4_ignored", "t4_per_item"])
def test_a_distillation_loss_is_what_is_trained_by_not_what_the_fork_prints(case: str) -> None:
    program, _, _ = golden_program(f"KnowledgeDistillation/{case}")
    found = Check(program).forward()["top0"]
    printed = float(golden()[f"KnowledgeDistillation/{case}"]["printed"])
    assert float(found) == pytest.approx(4**2 * printed, rel=1e-9)


def varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def part(number: int, payload: bytes | int | float) -> bytes:
    """A field as it lies in a file: a varint, a 32-bit float, or bytes with their length."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    if isinstance(payload, float):
        return varint(number << 3 | 5) + struct.pack("<f", payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob(*shape: int) -> bytes:
    """0, 1, 2, ... as a blob of this shape."""
    numbers = np.arange(np.prod(shape), dtype="<f4").tobytes()
    return part(7, part(7, part(1, b"".join(map(varint, shape)))) + part(5, numbers))


def wire_layer(name: str, kind: str, *rest: bytes) -> bytes:
    head = part(1, name.encode()) + part(2, kind.encode())
    return part(100, head + b"".join(rest))


FILLER = part(1, b"constant") + part(2, 1.0)
# A layer of each fork with parameters, as the fork numbers them, and one of NVIDIA's with its
# own fields around a layer of Caffe's.
BINARY = (
    part(1, b"forks")
    + part(200, part(1, 1))
    + wire_layer("bn", "BN", blob(1, 2), blob(1, 2), part(137, part(1, FILLER) + part(3, 0.5)))
    + wire_layer("up", "Interp", part(143, part(1, 60) + part(2, 60)))
    + wire_layer("un", "Upsample", part(137, part(1, 2) + part(3, 3)))
    + wire_layer("norm", "Normalize", part(206, part(1, 0)), blob(2))
    + wire_layer("box", "SmoothL1Loss", part(148, part(1, 3.0)), part(8266712, part(1, 3.0)))
    + wire_layer("ip", "InnerProduct", part(145, 2), blob(3, 2), part(150, 7))
)


def test_weights_load_whatever_fields_of_forks_stand_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "forks.caffemodel"
    path.write_bytes(BINARY)
    shapes = {
        layer.name: [values.shape for values in layer.blobs] for layer in read_weights(path).layers
    }
    found = {name: shape for name, shape in shapes.items() if shape}
    assert found == {"bn": [(1, 2)] * 2, "norm": [(2,)], "ip": [(3, 2)]}


def test_a_binary_net_with_fields_of_forks_is_refused_with_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("forks.bin").write_bytes(BINARY)
    with pytest.raises(SchemaError) as caught:
        read_net("forks.bin")
    assert f"{caught.value}\n" == GOLDEN.with_name("refused.txt").read_text()


@pytest.mark.parametrize("form", ["text", None])
def test_only_a_text_needs_to_know_what_the_fields_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("forks.caffemodel").write_bytes(BINARY)
    if form is None:
        upgrade_net_file("forks.caffemodel", "new.caffemodel")
        assert Path("new.caffemodel").read_bytes() == BINARY
        return
    with pytest.raises(SchemaError, match="fork-fields-in-binary"):
        upgrade_net_file("forks.caffemodel", "new.prototxt", form)
    assert not Path("new.prototxt").exists()


def test_a_binary_net_without_fields_of_forks_is_told_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = wire_layer("ip", "InnerProduct", part(117, part(1, 3)), blob(3, 2))
    for damage in (b"", part(100, b"\x0a\x7f"), b"\x1b", b"\xff" * 12):
        Path("net.bin").write_bytes(own + damage)
        with pytest.raises(SchemaError, match="not-a-text-file"):
            read_net("net.bin")


def test_every_field_of_a_fork_is_that_of_its_layer() -> None:
    for kind, known in FORK_FIELDS.items():
        assert {field.name for field in known} == {class_of_type(kind).params_field}
        assert len({field.number for field in known}) == len(known)


@pytest.mark.parametrize(
    ("stored", "fits"), [((1, 3), True), ((1, 3, 1, 1), True), ((3, 1), False), ((3,), False)]
)
def test_the_blobs_of_a_batch_norm_fit_as_the_forks_shape_them(
    stored: tuple[int, ...], fits: bool
) -> None:
    assert same_shape(stored, (1, 3, 1, 1)) is fits


# A teacher and a student as yjxiong/caffe's nets write them: two params for four blobs, and a
# teacher whose BN is frozen whatever they say.
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 2 dim: 3 dim: 3 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "bn" type: "BN" bottom: "data" top: "bn"
  param { lr_mult: 1 decay_mult: 0 } param { lr_mult: 1 decay_mult: 0 }
  bn_param { frozen: true slope_filler { value: 1 } bias_filler { value: 0 } } }
layer { name: "fc" type: "InnerProduct" bottom: "bn" top: "fc"
  param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param { num_output: 3 } }
layer { name: "s-bn" type: "BN" bottom: "data" top: "s-bn"
  param { lr_mult: 1 decay_mult: 0 } param { lr_mult: 1 decay_mult: 0 }
  bn_param { slope_filler { type: "constant" value: 1 } bias_filler { value: 0 } } }
layer { name: "s-fc" type: "InnerProduct" bottom: "s-bn" top: "s-fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "fc-scale" type: "Power" bottom: "fc" top: "fc-scale" power_param { scale: 0.5 } }
layer { name: "s-fc-scale" type: "Power" bottom: "s-fc" top: "s-fc-scale"
  power_param { scale: 0.5 } }
layer { name: "kd-loss" type: "SoftmaxWithCrossEntropyLoss" bottom: "s-fc-scale"
  bottom: "fc-scale" top: "kd-loss" propagate_down: true propagate_down: false
  loss_weight: 0.25 }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s-fc" bottom: "label" top: "loss" }
"""
SOLVER = """net: "kd.prototxt" base_lr: 0.5 lr_policy: "fixed" max_iter: 2 random_seed: 1
snapshot_prefix: "kd" solver_mode: CPU
"""


def test_a_frozen_batch_norm_is_a_teacher_s_and_a_student_s_follows_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kd.prototxt").write_text(NET)
    Path("kd_solver.prototxt").write_text(SOLVER)
    refused = run("train", "kd_solver.prototxt")
    assert refused.code == 1
    assert 'frozen layer "bn" was filled by no file' in refused.faults
    # Blobs of BN are rows in the files of some forks.
    Path("teacher.caffemodel").write_bytes(
        wire_layer("bn", "BN", *(blob(1, 2) for _ in range(4)))
        + wire_layer("fc", "InnerProduct", blob(3, 18), blob(3))
    )
    ok("train", "kd_solver.prototxt", "--weights", "teacher.caffemodel")
    layers = {layer.name: layer.blobs for layer in read_weights("kd_iter_2.caffemodel").layers}
    assert set(layers) == {"s-bn", "s-fc"}
    slope, bias, mean, variance = layers["s-bn"]
    assert slope.shape == (1, 2, 1, 1)
    assert not np.allclose(slope, 1)
    assert not np.allclose(bias, 0)
    assert np.all(mean != 0)
    # Two steps of momentum 0.9 from 0 towards a variance of about 1.
    np.testing.assert_allclose(variance, 0.19, atol=0.1)


@pytest.mark.parametrize(("provider", "guarded"), [("cpu", False), ("cuda", True)])
def test_a_place_outside_the_plane_is_never_written(provider: str, guarded: bool) -> None:
    program, _, expected = golden_program("Upsample/unpool")
    arrays = {**program.arrays, "bottom1": program.arrays["bottom1"].copy()}
    arrays["bottom1"][0, 0, 0, 0] = 6 * 7
    traced = Traced(replace(program, arrays=arrays, provider=provider), np.float32)
    model = traced.model(traced.outputs)
    if not guarded:
        with pytest.raises(Exception, match="idx=42 must be within"):
            onnxruntime_run(model, arrays)
        return
    found = onnxruntime_run(model, arrays)["top0"]
    first, *others = found.reshape(6, 6, 7)
    wanted, *unchanged = expected["top0"].reshape(6, 6, 7)
    assert np.count_nonzero(first[:-1, :-1]) == np.count_nonzero(wanted[:-1, :-1]) - 1
    np.testing.assert_allclose(others, unchanged, rtol=1e-6)
