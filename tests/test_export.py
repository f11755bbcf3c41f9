"""``kdnet export``: the files, their equality with the trained net, and the table."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from all_nets import ROOT
from small_nets import DATA, JOINED, JOINED_NET, STUDENT, edit, ok, run, said

from kdnet.graph import files
from kdnet.runtime.export import run as export_module
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net
from kdnet.weights import LayerBlobs, philox, read_weights, write_caffemodel

EXPORT = ("export", "joined.prototxt", "--device", "cpu", "--runs", "2")
SNAPSHOT = ("--weights", "run_iter_6.caffemodel")
TEACHER = ("--teacher-weights", "teacher.caffemodel")


@pytest.fixture
def trained(joined: Path) -> Path:
    """A workplace in which the joined net was trained."""
    edit(joined / "joined_solver.prototxt", "test_iter: 2 test_interval: 3", "")
    ok(*JOINED)
    return joined


def session(path: str | Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def scores_by(path: str | Path, data: np.ndarray) -> np.ndarray:
    return session(path).run(None, {"data": data})[0]


def by_hand(data: np.ndarray, path: str = "run_iter_6.caffemodel") -> np.ndarray:
    """The small student in numpy, with the weights of a file."""
    blobs = {layer.name.split("/")[-1]: layer.blobs for layer in read_weights(path).layers}
    hidden = np.maximum(data.reshape(len(data), -1) @ blobs["ip1"][0].T + blobs["ip1"][1], 0)
    return hidden @ blobs["ip2"][0].T + blobs["ip2"][1]


def images(count: int) -> np.ndarray:
    return philox(9, "images").random((count, 1, 4, 4), np.float32)


# --- the files


def test_the_three_files_are_the_student_alone(trained: Path) -> None:
    ended = ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "out/student")
    assert sorted(os.listdir("out")) == [
        "student.caffemodel",
        "student.onnx",
        "student.prototxt",
    ]
    assert ended.out.splitlines()[-3:] == [
        "out/student.prototxt",
        "out/student.caffemodel",
        "out/student.onnx",
    ]
    assert not list(trained.glob(".kdnet-*"))
    found = read_weights("out/student.caffemodel")
    assert [layer.name for layer in found.layers] == ["student/ip1", "student/ip2"]
    assert [layer.type for layer in found.layers] == ["InnerProduct", "InnerProduct"]
    before = {layer.name: layer.blobs for layer in read_weights("run_iter_6.caffemodel").layers}
    for layer in found.layers:
        for blob, known in zip(layer.blobs, before[layer.name], strict=True):
            np.testing.assert_array_equal(blob, known)
    model = onnx.load("out/student.onnx")
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Gemm", "Relu", "Gemm"]
    assert not model.graph.value_info
    assert {entry.domain for entry in model.opset_import} == {""}


@pytest.mark.usefixtures("trained")
def test_the_model_equals_the_trained_net_at_any_batch() -> None:
    ended = ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "student")
    for batch in (1, 5, 64):
        data = images(batch)
        np.testing.assert_allclose(
            scores_by("student.onnx", data), by_hand(data), rtol=1e-5, atol=1e-6
        )
    assert said(ended, r'"student/ip2" against the trained net: \S+ at batch 1, ')
    assert said(ended, r"at batch 3, \S+ at batch 10$")


@pytest.mark.usefixtures("trained")
def test_the_definition_holds_nothing_of_training() -> None:
    ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "student")
    text = Path("student.prototxt").read_text()
    assert text.startswith('# Blob "student/ip2" of joined.prototxt, written by kdnet ')
    assert '# Images become "data" as (x - mean) * scale: scale 0.00390625.' in text
    message = read_net("student.prototxt").message
    kinds = [(layer.name, layer.type) for layer in message.layer]
    assert kinds == [
        ("data", "Input"),
        ("student/ip1", "InnerProduct"),
        ("student/relu1", "ReLU"),
        ("student/drop1", "Dropout"),
        ("student/ip2", "InnerProduct"),
    ]
    assert list(message.layer[0].input_param.shape[0].dim) == [1, 1, 4, 4]
    for layer in message.layer:
        given = {field.name for field, _ in layer.ListFields()}
        assert not given & {"include", "param", "loss_weight", "transform_param", "phase"}
        assert not layer.inner_product_param.HasField("weight_filler")


@pytest.mark.usefixtures("trained")
def test_the_definition_and_its_weights_run_here_again() -> None:
    ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "student")
    text = Path("student.prototxt").read_text()
    input_layer = text[text.index("layer {") : text.index("layer {", text.index("layer {") + 1)]
    tail = 'layer { name: "a" type: "Accuracy" bottom: "student/ip2" bottom: "label" top: "a" }'
    Path("again.prototxt").write_text(text.replace(input_layer, DATA) + tail)
    again = ok("test", "again.prototxt", "--weights", "student.caffemodel", "--device", "cpu")
    both = ("--weights", "run_iter_6.caffemodel,teacher.caffemodel")
    known = ok("test", "joined.prototxt", *both, "--device", "cpu")
    scores = [re.search(r"^a\w* = (\S+)$", ended.out, re.M).group(1) for ended in (again, known)]
    assert scores[0] == scores[1]
    ok("export", "student.prototxt", "--weights", "student.caffemodel", "-o", "twice")
    data = images(3)
    np.testing.assert_array_equal(scores_by("twice.onnx", data), scores_by("student.onnx", data))
    assert Path("twice.caffemodel").read_bytes() == Path("student.caffemodel").read_bytes()


@pytest.mark.usefixtures("trained")
def test_names_lose_their_prefix_and_the_model_ends_in_probabilities() -> None:
    rules = ("--rename", "s/^student.//", "--softmax")
    ok(*EXPORT, *SNAPSHOT, *TEACHER, *rules, "-o", "out/")
    assert sorted(os.listdir("out")) == ["ip2.caffemodel", "ip2.onnx", "ip2.prototxt"]
    layers = read_weights("out/ip2.caffemodel").layers
    assert [layer.name for layer in layers] == ["ip1", "ip2"]
    data = images(4)
    found = session("out/ip2.onnx")
    assert [entry.name for entry in found.get_outputs()] == ["prob"]
    scores = np.exp(by_hand(data))
    wanted = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.run(None, {"data": data})[0], wanted, rtol=1e-5, atol=1e-7)
    assert read_net("out/ip2.prototxt").message.layer[-1].type == "Softmax"


@pytest.mark.usefixtures("trained")
def test_the_model_knows_its_classes_and_its_input() -> None:
    Path("names.txt").write_text("zero\n one \n\ntwo\n")
    flags = ("--preprocess", "--classes", "names.txt", "-o", "student")
    ok(*EXPORT, *SNAPSHOT, *TEACHER, *flags)
    props = onnx.load("student.onnx").metadata_props
    held = {entry.key: json.loads(entry.value) for entry in props}
    assert held["kdnet.classes"] == ["zero", "one", "two"]
    assert held["kdnet.inputs"] == {"data": {"scale": 0.00390625}}
    assert held["kdnet.preprocess"] == ["data"]
    assert (held["kdnet.net"], held["kdnet.head"]) == ("Joined", "student/ip2")
    grey = philox(9, "grey").integers(0, 256, (3, 1, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        scores_by("student.onnx", grey), by_hand(grey / 256), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("crop", [0, 2])
def test_a_mean_image_goes_in_front_at_the_place_of_the_crop(trained: Path, crop: int) -> None:
    mean = pb.BlobProto(num=1, channels=1, height=4, width=4, data=range(16))
    (trained / "mean.binaryproto").write_bytes(mean.SerializeToString())
    text = f'transform_param {{ scale: 0.5 mean_file: "mean.binaryproto" crop_size: {crop} }}'
    edit(trained / "joined.prototxt", "transform_param { scale: 0.00390625 }", text)
    flags = ("--allow-unloaded", "--iterations", "0", "--preprocess", "-o", "student")
    ok(*EXPORT, *flags)
    model = onnx.load("student.onnx")
    assert [node.op_type for node in model.graph.node][:2] == ["Sub", "Mul"]
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    found = held[model.graph.node[0].input[1]]
    whole = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    np.testing.assert_array_equal(found, whole[:, 1:3, 1:3] if crop else whole)
    first = Path("student.prototxt").read_text().splitlines()[1]
    assert "mean_file mean.binaryproto, scale 0.5" in first


def test_projectors_of_losses_stay_behind(trained: Path) -> None:
    hint = """
layer { name: "hint" type: "Hint" bottom: "student/ip1" bottom: "teacher/ip" top: "hint"
  include { phase: TRAIN } }
"""
    path = trained / "joined.prototxt"
    blobs = tuple(
        blob for layer in read_weights("run_iter_6.caffemodel").layers for blob in layer.blobs
    )
    write_caffemodel(
        "snapshot.caffemodel",
        [
            LayerBlobs("student/ip1", "InnerProduct", blobs[:2]),
            LayerBlobs("student/ip2", "InnerProduct", blobs[2:]),
            LayerBlobs("hint", "Hint", (np.ones((3, 8), np.float32),)),
        ],
    )
    path.write_text(JOINED_NET + hint)
    ended = ok(*EXPORT, "--weights", "snapshot.caffemodel", *TEACHER, "-o", "student")
    assert said(ended, "ignored in snapshot.caffemodel: hint")
    assert [layer.name for layer in read_weights("student.caffemodel").layers] == [
        "student/ip1",
        "student/ip2",
    ]


def test_two_students_are_written_each_under_its_name(trained: Path) -> None:
    second = STUDENT.replace("student/", "pupil/")
    loss = """
layer { name: "l2" type: "SoftmaxWithLoss" bottom: "pupil/ip2" bottom: "label" top: "l2" }
"""
    (trained / "joined.prototxt").write_text(JOINED_NET + second + loss)
    layers = read_weights("run_iter_6.caffemodel").layers
    other = [
        LayerBlobs(
            layer.name.replace("student", "pupil"), layer.type, tuple(-b for b in layer.blobs)
        )
        for layer in layers
    ]
    write_caffemodel("pupil.caffemodel", other)
    files_ = ("--weights", "run_iter_6.caffemodel,pupil.caffemodel")
    ended = ok(*EXPORT, *files_, *TEACHER, "-o", "out/")
    assert len(os.listdir("out")) == 6
    data = images(2)
    np.testing.assert_allclose(
        scores_by("out/pupil_ip2.onnx", data), by_hand(data, "pupil.caffemodel"), atol=1e-5
    )
    rows = [line.split()[0] for line in ended.out.splitlines()[1:4]]
    assert rows == ["teacher/ip", "student/ip2", "pupil/ip2"]
    same = ("--rename", "s/^student.//", "--rename", "s/^pupil.//", "-o", "same/")
    ok(*EXPORT, *files_, *TEACHER, *same)
    assert {name.split(".")[0] for name in os.listdir("same")} == {
        "student_ip2_1",
        "pupil_ip2_2",
    }
    ok(*EXPORT, *files_, "--head", "pupil/ip2", "-o", "one.onnx")
    assert Path("one.onnx").is_file()
    assert Path("one.prototxt").is_file()


@pytest.mark.usefixtures("trained")
def test_a_teacher_is_exported_by_its_name() -> None:
    ended = ok(*EXPORT, "--weights", "teacher.caffemodel", "--head", "teacher/ip", "-o", "out/")
    assert sorted(os.listdir("out"))[0] == "teacher_ip.caffemodel"
    assert "teacher/ip  teacher" in ended.out


@pytest.mark.usefixtures("trained")
def test_large_weights_go_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    edit(Path("joined.prototxt"), "num_output: 8", "num_output: 300")
    monkeypatch.setattr(files, "EXTERNAL_FROM_BYTES", 1000)
    ended = ok(*EXPORT, "--allow-unloaded", "-o", "out/s")
    assert ended.out.splitlines()[-1] == "out/s.onnx.data"
    size = os.path.getsize("out/s.onnx.data")
    ok(*EXPORT, "--allow-unloaded", "-o", "out/s")
    assert os.path.getsize("out/s.onnx.data") == size
    assert scores_by("out/s.onnx", images(2)).shape == (2, 3)


@pytest.mark.usefixtures("trained")
def test_exporting_twice_writes_the_same_bytes() -> None:
    for name in ("one/s", "two/s"):
        ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", name)
    for ending in ("onnx", "caffemodel", "prototxt"):
        assert Path(f"one/s.{ending}").read_bytes() == Path(f"two/s.{ending}").read_bytes()


def test_lenet_student_of_the_shipped_net(tmp_path: Path) -> None:
    slots = [("student/ip1", (32, 784)), ("student/ip2", (10, 32))]
    layers = [
        LayerBlobs(
            name,
            "InnerProduct",
            (
                philox(1, name).standard_normal(shape, np.float32) / 28,
                philox(2, name).standard_normal(shape[:1], np.float32),
            ),
        )
        for name, shape in slots
    ]
    write_caffemodel(tmp_path / "s.caffemodel", layers)
    net = ROOT / "nets" / "mnist" / "lenet_joined.prototxt"
    ended = ok(
        *("export", net, "--weights", tmp_path / "s.caffemodel", "--iterations", "0"),
        *("-o", tmp_path / "lenet", "--device", "cpu", "--runs", "1"),
    )
    assert "2.293M" in ended.out
    data = philox(3, "digits").random((5, 1, 28, 28), np.float32)
    for batch in (1, 5):
        wanted = by_hand(data[:batch], str(tmp_path / "s.caffemodel"))
        found = scores_by(tmp_path / "lenet.onnx", data[:batch])
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_imported_model_is_a_teacher_and_a_student_of_any_batch(trained: Path) -> None:
    ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "made")
    path = trained / "joined.prototxt"
    text = path.read_text()
    start, end = (
        text.index(f'layer {{\n  name: "{name}"') for name in ("teacher/ip", "student/ip1")
    )
    layer = 'layer { name: "%s" type: "ONNX" bottom: "data" top: "%s" onnx_param { %s } }\n'
    model = 'model: "made.onnx"'
    path.write_text(text[:start] + layer % ("teacher/ip", "teacher/ip", model) + text[end:])
    ended = ok(*EXPORT, *SNAPSHOT, "-o", "s")
    assert ended.out.splitlines()[1].split()[:3] == ["teacher/ip", "teacher", "163"]
    pupil = layer % ("pupil", "pupil", f"{model} trainable: true")
    ending = text.index('layer {\n  name: "accuracy"')
    path.write_text(text[:ending] + pupil + text[ending:].replace('"student/ip2"', '"pupil"'))
    refused = run(*EXPORT, *SNAPSHOT, "-o", "p", "--head", "pupil")
    assert "[unloaded-student]" in refused.faults
    ok(*EXPORT, *SNAPSHOT, "-o", "p", "--head", "pupil", "--allow-unloaded")
    data = images(7)
    np.testing.assert_allclose(scores_by("p.onnx", data), by_hand(data), rtol=1e-5, atol=1e-6)


# --- what goes wrong


@pytest.mark.usefixtures("trained")
def test_a_model_that_differs_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("student.onnx").write_text("what was there")
    whole = export_module.onnx_model

    def spoilt(deploy, values, *others):
        return whole(deploy, {name: value * 1.001 for name, value in values.items()}, *others)

    monkeypatch.setattr(export_module, "onnx_model", spoilt)
    ended = run(*EXPORT, *SNAPSHOT, "-o", "student")
    assert ended.code == 3
    assert "[export-mismatch]" in ended.faults
    assert Path("student.onnx").read_text() == "what was there"
    assert not Path("student.caffemodel").exists()
    run(*EXPORT, *SNAPSHOT, "-o", "fresh/student")
    assert not Path("fresh").exists()


@pytest.mark.usefixtures("trained")
def test_a_student_that_diverged_is_not_written() -> None:
    layers = read_weights("run_iter_6.caffemodel").layers
    spoilt = [
        LayerBlobs(layer.name, layer.type, tuple(b * np.float32(np.nan) for b in layer.blobs))
        for layer in layers
    ]
    write_caffemodel("nan.caffemodel", spoilt)
    ended = run(*EXPORT, "--weights", "nan.caffemodel", "-o", "student")
    assert ended.code == 3
    assert "not finite" in ended.faults


@pytest.mark.usefixtures("trained")
def test_a_folder_in_the_place_of_a_file_stops_the_export() -> None:
    Path("s.onnx").mkdir()
    ended = run(*EXPORT, *SNAPSHOT, "-o", "s")
    assert ended.code == 1
    assert "[cannot-write]" in ended.faults
    assert not Path("s.prototxt").exists()
    Path("file").write_text("")
    ended = run(*EXPORT, *SNAPSHOT, "-o", "file/student")
    assert "[cannot-write]" in ended.faults


@pytest.mark.usefixtures("trained")
def test_a_link_stays_a_link() -> None:
    Path("real").mkdir()
    Path("student.onnx").symlink_to("real/student.onnx")
    ok(*EXPORT, *SNAPSHOT, "-o", "student")
    assert Path("student.onnx").is_symlink()
    assert Path("real/student.onnx").is_file()
