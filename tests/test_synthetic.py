"""--synthetic-data: what stands in for data that are not there, and what is said of it."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from tables.sources import PIXELS, datum, write_lmdb

from kdnet.cli import main
from kdnet.data import open_source
from kdnet.errors import DataError
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.net.model import StandIn
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.synthetic import with_stand_ins
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.reader import read_text

DATA = """layer { name: "d" type: "Data" top: "data" top: "label"
    data_param { source: "nowhere_lmdb" batch_size: 4 } %s }"""
HEAD = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
    inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""
CROP = DATA % "transform_param { crop_size: 5 }" + HEAD


class Heard:
    """The lines of a log."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.log = CaffeLog(self)

    def write(self, text: str) -> int:
        self.lines += [re.sub(r"^\S+ \S+ +\d+ \S+ ", "", line) for line in text.splitlines()]
        return len(text)

    def flush(self) -> None:
        pass


def resolved(text: str, folder: Path, phase: int = pb.TRAIN) -> NetModel:
    read = read_text(text, str(folder / "net.prototxt"), pb.NetParameter)
    return resolve_net(read.message, read.source, NetState(phase))


def made(text: str, folder: Path, **given: tuple[int, ...]) -> tuple[NetModel, list[str]]:
    heard = Heard()
    (net,) = with_stand_ins([resolved(text, folder)], given, heard.log)
    return net, [line for line in heard.lines if line]


def test_crop_size_says_the_shape_and_the_losses_say_the_labels(tmp_path: Path):
    net, lines = made(CROP, tmp_path)
    assert net.layers[0].stand_in == StandIn(((3, 5, 5),), (0, 7), 4)
    assert lines == [
        'layer "d": "nowhere_lmdb" is not there: made-up data stand in, data (4, 3, 5, 5) of '
        "bytes before transform_param, label (4,) of 0 to 6"
    ]
    with open_source(net.layers[0], seed=0) as source:
        batches = [source.batch(index) for index in range(40)]
    images = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches])
    assert images.shape == (160, 3, 5, 5)
    assert set(labels) == set(range(7))
    assert images.min() == 0
    assert images.max() == 255
    assert (images == np.trunc(images)).all()


@pytest.mark.parametrize(
    ("layer", "given", "shape"),
    [
        (DATA % "transform_param { crop_size: 5 mean_value: 3 }", {}, (3, 5, 5)),
        (DATA % "transform_param { crop_size: 5 mean_value: 3 mean_value: 4 }", {}, (2, 5, 5)),
        (DATA % "transform_param { crop_size: 5 force_gray: true }", {}, (1, 5, 5)),
        (DATA % "", {"data": (2, 6, 4)}, (2, 6, 4)),
        (
            DATA.replace("batch_size", "shape { dim: 2 dim: 6 dim: 4 } batch_size") % "",
            {},
            (2, 6, 4),
        ),
        (
            """layer { name: "i" type: "ImageData" top: "data" top: "label" image_data_param {
               source: "x" batch_size: 4 new_height: 6 new_width: 4 is_color: false } }""",
            {},
            (1, 6, 4),
        ),
        (
            """layer { name: "w" type: "WindowData" top: "data" top: "label" window_data_param {
               source: "x" batch_size: 4 } transform_param { crop_size: 9 } }""",
            {},
            (3, 9, 9),
        ),
        (
            """layer { name: "m" type: "MemoryData" top: "data" top: "label" memory_data_param {
               batch_size: 4 channels: 2 height: 6 width: 4 } }""",
            {},
            (2, 6, 4),
        ),
    ],
)
def test_shapes_come_from_what_the_layer_says(layer, given, shape, tmp_path: Path):
    net, _ = made(layer + HEAD, tmp_path, **given)
    assert net.layers[0].stand_in == StandIn((shape,), (0, 7), 4)
    with open_source(net.layers[0], seed=0) as source:
        assert [values.shape for values in source.batch(0)] == list(source.shapes)


def mean_file(folder: Path, *shape: int) -> None:
    blob = pb.BlobProto(num=1, channels=shape[0], height=shape[1], width=shape[2])
    blob.data.extend([1.0] * int(np.prod(shape)))
    (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())


def test_a_mean_file_that_is_there_says_the_shape(tmp_path: Path):
    mean_file(tmp_path, 3, 8, 6)
    text = DATA % 'transform_param { crop_size: 5 mean_file: "mean.binaryproto" }' + HEAD
    net, _ = made(text, tmp_path)
    assert net.layers[0].stand_in is not None
    assert net.layers[0].stand_in.shapes == ((3, 8, 6),)
    with open_source(net.layers[0], seed=0) as source:
        assert source.batch(0)[0].shape == (4, 3, 5, 5)


def test_a_mean_file_that_is_not_there_has_a_stand_in_even_where_the_data_are(tmp_path: Path):
    write_lmdb(tmp_path / "nowhere_lmdb", [datum(row).SerializeToString() for row in range(4)])
    text = DATA % 'transform_param { mean_file: "gone.binaryproto" }' + HEAD
    net, lines = made(text, tmp_path)
    assert lines == [
        'layer "d": the mean file "gone.binaryproto" is not there: 128 stands in for it'
    ]
    assert net.layers[0].stand_in is None
    with open_source(net.layers[0], seed=0) as source:
        np.testing.assert_array_equal(source.batch(0)[0], PIXELS[:4].astype(np.float32) - 128)


def test_data_of_another_phase_say_the_shape(tmp_path: Path):
    write_lmdb(tmp_path / "there", [datum(row).SerializeToString() for row in range(4)])
    train, test = DATA % "include { phase: TRAIN }", DATA % "include { phase: TEST }"
    text = train + test.replace("nowhere_lmdb", "there") + HEAD
    nets = [resolved(text, tmp_path, phase) for phase in (pb.TRAIN, pb.TEST)]
    heard = Heard()
    found = with_stand_ins(nets, {}, heard.log)
    assert [net.layers[0].stand_in for net in found] == [StandIn(((3, 6, 5),), (0, 7), 4), None]
    assert len(heard.lines) == 1


PHASES = (
    DATA % "include { phase: TRAIN } transform_param { crop_size: 5 }"
    + DATA % "include { phase: TEST }"
    + HEAD
)


def test_made_up_data_of_another_phase_say_the_shape(tmp_path: Path):
    nets = [resolved(PHASES, tmp_path, phase) for phase in (pb.TRAIN, pb.TEST)]
    for found in (with_stand_ins(nets, {}, Heard().log)[1], _tested(nets)):
        assert found.layers[0].stand_in == StandIn(((3, 5, 5),), (0, 7), 4)


def _tested(nets: list[NetModel]) -> NetModel:
    heard = Heard()
    (found,) = with_stand_ins(nets[1:], {}, heard.log, nets[:1])
    assert len([line for line in heard.lines if line]) == 1
    return found


def test_a_test_alone_takes_the_shape_from_the_training_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(PHASES)
    words = ["--synthetic-data", "--device", "cpu", "--iterations", "1"]
    assert main(["test", "net.prototxt", *words]) == 0


HDF5 = (
    """layer { name: "h" type: "HDF5Data" top: "data" top: "label" top: "more"
    hdf5_data_param { source: "list.txt" batch_size: 4 } }"""
    + HEAD
)


def test_tops_of_hdf5_are_numbers_and_labels(tmp_path: Path):
    net, lines = made(HDF5, tmp_path, data=(3,), more=(2, 5))
    assert lines == [
        'layer "h": "list.txt" is not there: made-up data stand in, data (4, 3) of [0, 1), '
        "label (4,) of 0 to 6, more (4, 2, 5) of [0, 1)"
    ]
    with open_source(net.layers[0], seed=0) as source:
        data, label, more = (
            np.stack([source.batch(k)[top] for k in range(50)]) for top in (0, 1, 2)
        )
    assert set(label.ravel()) == set(range(7))
    for values in (data, more):
        assert 0 <= values.min() < 0.1
        assert 0.9 < values.max() < 1


def test_every_top_of_unknown_shape_is_told(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        made(HDF5.replace('bottom: "data" top', 'bottom: "more" top'), tmp_path)
    found = [(fault.code, fault.help[0].split("=")[0]) for fault in caught.value.diagnostics]
    assert found == [
        ("unknown-item-shape", "say --input-shape data"),
        ("unknown-item-shape", "say --input-shape more"),
    ]


def test_a_list_whose_files_are_gone_has_a_stand_in_and_one_whose_are_there_has_none(tmp_path):
    (tmp_path / "list.txt").write_text("a.h5\n")
    assert made(HDF5, tmp_path, data=(3,), more=(2,))[0].layers[0].stand_in is not None
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("data", "label", "more"):
            file[name] = np.zeros((5, 2))
    assert made(HDF5, tmp_path, data=(3,), more=(2,))[0].layers[0].stand_in is None


def test_an_input_layer_gets_numbers(tmp_path: Path):
    text = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }'
    net, lines = made(text, tmp_path)
    assert lines == ['layer "in": Input has no data: made-up data stand in, data (2, 3) of [0, 1)']
    (source,) = open_sources(net, seed=0)
    assert source.batch(0)[0].shape == (2, 3)


def test_a_record_belongs_to_the_seed_the_data_and_its_number(tmp_path: Path):
    net, _ = made(CROP, tmp_path)
    other, _ = made(CROP.replace("nowhere_lmdb", "elsewhere"), tmp_path)
    wide, _ = made(CROP.replace("batch_size: 4", "batch_size: 8"), tmp_path)

    def batch(of: NetModel, seed: int, index: int) -> tuple[np.ndarray, ...]:
        with open_source(of.layers[0], seed=seed) as source:
            return source.batch(index)

    first = batch(net, 0, 0)
    # TRAIN crops nothing here: the images are as large as the crop.
    np.testing.assert_array_equal(batch(wide, 0, 0)[0][:4], first[0])
    np.testing.assert_array_equal(batch(net, 0, 256)[0], first[0])
    for images, _ in (batch(net, 0, 1), batch(net, 1, 0), batch(other, 0, 0)):
        assert (images != first[0]).any()


def test_labels_reach_large_numbers_of_classes_but_never_the_number_itself(tmp_path: Path):
    layer = resolved(HDF5, tmp_path).layers[0]
    stand_in = StandIn(((1024, 64), (1024,), (1024,)), (1, 2**24, 0))
    with open_source(type(layer)(**{**vars(layer), "stand_in": stand_in}), seed=0) as source:
        ones, many, _ = source.batch(0)
    assert (ones == 0).all()
    assert 2**23 < many.max() < 2**24


ANSWERS = """layer { name: "a" type: "SoftLabels" top: "answers"
    soft_labels_param { source: "gone.npz" num_classes: 7 %s } }"""
LEARNS = """layer { name: "kd" type: "TeacherStudentCrossEntropy" bottom: "ip" bottom: "answers"
    top: "kd" }"""
TAUGHT = CROP.replace(HEAD, ANSWERS + HEAD + LEARNS)


@pytest.mark.parametrize("form", ["", "form: PROBABILITIES", "top_form: PROBABILITIES"])
def test_answers_that_are_not_there_are_made_up_and_follow_the_records(form: str, tmp_path: Path):
    net, lines = made(TAUGHT % form, tmp_path)
    assert lines[1] == (
        'layer "a": "gone.npz" is not there: made-up answers of 7 classes stand in'
    )
    data, answers = open_sources(net, seed=0)
    first, again = answers.batch(0)[0], answers.batch(256)[0]
    np.testing.assert_array_equal(data.records(0), data.records(256))
    np.testing.assert_array_equal(first, again)
    assert first.shape == answers.shapes[0] == (4, 7)
    assert (first != answers.batch(1)[0]).any()
    sums = first.sum(axis=1)
    assert (np.abs(sums - 1) < 1e-6).all() == bool(form)
    assert answers.varies == ""
    others = [open_sources(net, seed=1)[1]]
    others.append(open_sources(made(TAUGHT.replace("gone", "far") % form, tmp_path)[0], seed=0)[1])
    for other in others:
        assert other.identity() != answers.identity()
        assert (other.batch(0)[0] != first).any()


def test_answers_that_are_there_have_no_stand_in(tmp_path: Path):
    np.savez(tmp_path / "gone.npz", logits=np.zeros((4, 7), np.float32))
    net, _ = made(TAUGHT % "", tmp_path)
    assert [bool(layer.stand_in) for layer in net.layers[:2]] == [True, False]


INFOGAIN = CROP.replace(
    'type: "SoftmaxWithLoss"',
    'type: "InfogainLoss" infogain_loss_param { source: "h.binaryproto" }',
)


def test_the_identity_stands_in_for_a_matrix_that_is_not_there(tmp_path, monkeypatch):
    net, lines = made(INFOGAIN, tmp_path)
    assert lines[0] == (
        'layer "loss": "h.binaryproto" is not there: the identity stands in for the matrix'
    )
    assert net.layers[-1].stand_in is not None
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(INFOGAIN)
    Path("net_solver.prototxt").write_text(SOLVER)
    command = ["compile", "net.prototxt", "--synthetic-data", "-o"]
    assert main([*command, "without.onnx"]) == 0
    blob = pb.BlobProto(shape=pb.BlobShape(dim=[7, 7]), data=np.eye(7).ravel().tolist())
    Path("h.binaryproto").write_bytes(blob.SerializeToString())
    assert made(INFOGAIN, tmp_path)[0].layers[-1].stand_in is None
    assert main([*command, "with.onnx"]) == 0
    assert Path("with.onnx").read_bytes() == Path("without.onnx").read_bytes()


SOLVER = (
    'base_lr: 0.01 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false net: "net.prototxt"'
)


@pytest.mark.parametrize("command", ["train", "test", "check", "compile"])
def test_commands_run_without_the_data(command: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(CROP)
    Path("net_solver.prototxt").write_text(SOLVER)
    words = {
        "train": ["--device", "cpu"],
        "test": ["--device", "cpu", "--iterations", "2"],
        "check": ["--device", "cpu"],
        "compile": ["-o", "step.onnx"],
    }[command]
    assert main([command, "net.prototxt", "--synthetic-data", *words]) == 0
    assert '"nowhere_lmdb" is not there: made-up data stand in' in capsys.readouterr().err
    assert main([command, "net.prototxt", *words]) == 1
