"""Joined nets compute what their parts compute: losses, views, means, and whole runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from joining import joined
from small_nets import Ended, edit, ok, run, said, teacher_blobs

from kdnet.data import open_source
from kdnet.data.lmdb_writer import write_database
from kdnet.net import LayerModel, NetState, resolve_net
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, philox, read_weights, write_caffemodel

NETS = Path(__file__).parents[1] / "nets"
DATA = """
layer { name: "digits" type: "Data" top: "data" top: "label" transform_param { %s }
  data_param { source: "digits_lmdb" backend: LMDB batch_size: 6 } }
"""
NET = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 4 display: 1 snapshot_prefix: "runs/own"
"""

PAIR = """
teacher { net: "big.prototxt" weights: "big.caffemodel" }
student { net: "small.prototxt" }
"""


def losses(ended: Ended) -> list[str]:
    """The lines of outputs and of the whole loss."""
    return [
        line.split("), ")[-1]
        for line in ended.log
        if re.search(r"net output #|Iteration \d+ \(", line)
    ]


def outputs(ended: Ended) -> dict[str, float]:
    """The first value of each train output."""
    found = re.findall(r"Train net output #\d+: (\S+) = (\S+)", "\n".join(ended.log))
    return {name: float(value) for name, value in reversed(found)}


@pytest.fixture
def nets(workplace: Path) -> Path:
    """A teacher, a student with its solver, and the teacher's own weights."""
    scale = "scale: 0.00390625"
    (workplace / "big.prototxt").write_text('name: "Big"' + DATA % scale + NET)
    (workplace / "small.prototxt").write_text('name: "Small"' + DATA % scale + NET)
    (workplace / "small_solver.prototxt").write_text('net: "small.prototxt"' + SOLVER)
    write_caffemodel(workplace / "big.caffemodel", [LayerBlobs("ip", "", teacher_blobs())])
    return workplace


FLAGS = ("--teacher", "big.prototxt", "--teacher-weights", "big.caffemodel")
STUDENT = ("--student", "small.prototxt")


def test_a_description_trains_as_the_joined_file_does(nets: Path) -> None:
    (nets / "pair.prototxt").write_text(PAIR)
    ended = ok("join", *FLAGS, *STUDENT, "-o", "out.prototxt")
    assert ended.out.splitlines()[-1] == (
        "next: kdnet train out.prototxt --weights out.teacher.caffemodel"
    )
    direct = ok("train", "pair.prototxt", "--device", "cpu")
    written = ok("train", "out.prototxt", "--weights", "out.teacher.caffemodel", "--device", "cpu")
    by_solver = ok("train", "out.prototxt", "--device", "cpu")
    assert losses(direct) == losses(written) == losses(by_solver)
    assert len(losses(direct)) == 12
    assert (nets / "runs/pair_iter_4.caffemodel").read_bytes() == (
        nets / "runs/out_iter_4.caffemodel"
    ).read_bytes()
    assert [layer.name for layer in read_weights("runs/pair_iter_4.caffemodel").layers] == ["ip"]


def test_the_copy_of_the_weights_has_the_joined_names(nets: Path) -> None:
    ok("join", *FLAGS, *STUDENT, "-o", "out.prototxt")
    (copy,) = read_weights("out.teacher.caffemodel").layers
    assert copy.name == "teacher/ip"
    np.testing.assert_array_equal(copy.blobs[0], teacher_blobs()[0])
    assert "big.caffemodel" in (nets / "out.prototxt").read_text().split("layer {")[0]


def test_weights_under_their_own_names_are_not_copied(nets: Path) -> None:
    write_caffemodel(nets / "start.caffemodel", [LayerBlobs("ip", "", teacher_blobs())])
    ended = ok(
        "join", *FLAGS, *STUDENT, "--student-weights", "start.caffemodel", "-o", "o.prototxt"
    )
    assert not (nets / "o.student.caffemodel").exists()
    assert "--weights o.teacher.caffemodel,start.caffemodel" in ended.out
    log = ok("train", "o.prototxt", "--device", "cpu")
    assert said(log, r"^ip +loaded +2 +start.caffemodel$")
    assert said(log, r"^teacher/ip +loaded, frozen +2 +o.teacher.caffemodel$")


def test_no_solver_is_written_where_none_is_wanted(nets: Path) -> None:
    ok("join", *FLAGS, *STUDENT, "--no-solver", "-o", "out.prototxt")
    assert not (nets / "out_solver.prototxt").exists()


def test_files_are_found_from_another_folder(nets: Path) -> None:
    (nets / "deep").mkdir()
    for name in ("big.prototxt", "small.prototxt", "big.caffemodel"):
        (nets / name).rename(nets / "deep" / name)
    (nets / "deep" / "digits_lmdb").symlink_to((nets / "digits_lmdb").resolve())
    (nets / "digits_lmdb").unlink()
    (nets / "deep" / "pair.prototxt").write_text(PAIR)
    direct = ok("train", "deep/pair.prototxt", "--max-iter", 1, "--device", "cpu")
    ok("join", "--description", "deep/pair.prototxt", "-o", "out.prototxt")
    assert 'source: "deep/digits_lmdb"' in (nets / "out.prototxt").read_text()
    written = ok(
        "train", "out.prototxt", "--weights", "out.teacher.caffemodel",
        "--max-iter", 1, "--device", "cpu",
    )  # fmt: skip
    assert outputs(direct) == outputs(written)


def test_a_solver_chosen_by_the_description_wins(nets: Path) -> None:
    (nets / "other.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 2"))
    (nets / "pair.prototxt").write_text(PAIR + ' solver: "other.prototxt"')
    ok("train", "pair.prototxt", "--device", "cpu")
    assert (nets / "runs/own_iter_2.caffemodel").exists()
    (nets / "chosen.prototxt").write_text('net: "pair.prototxt"' + SOLVER)
    ok("train", "chosen.prototxt", "--max-iter", 3, "--device", "cpu")
    assert (nets / "runs/own_iter_3.caffemodel").exists()
    (nets / "pair.prototxt").write_text(PAIR)
    (nets / "pair_solver.prototxt").write_text(SOLVER.replace("runs/own", "runs/beside"))
    ok("train", "pair.prototxt", "--device", "cpu")
    assert (nets / "runs/beside_iter_4.caffemodel").exists()


@pytest.mark.parametrize("shift", ["", "mean_value: 64"])
def test_a_view_in_the_graph_is_the_view_of_a_data_layer(shift: str, nets: Path) -> None:
    """The teacher sees its own scale and mean: its loss is that of training it alone."""
    edit(nets / "big.prototxt", "scale: 0.00390625", f"scale: 0.01 {shift}")
    alone = ok(
        "test", "big.prototxt", "--weights", "big.caffemodel", "--iterations", 1, "--device", "cpu"
    )
    text = """teacher { net: "big.prototxt" weights: "big.caffemodel" keep_losses: true }
    student { net: "small.prototxt" }"""
    (nets / "pair.prototxt").write_text(text)
    ok("join", "--description", "pair.prototxt", "-o", "out.prototxt")
    assert 'type: "Power"' in (nets / "out.prototxt").read_text()
    log = ok("train", "pair.prototxt", "--max-iter", 1, "--device", "cpu")
    expected = float(re.search(r"^loss = (\S+)", alone.out, re.MULTILINE)[1])
    assert outputs(log)["teacher/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_second_data_layer_shows_the_same_records_flipped_alike(nets: Path) -> None:
    edit(nets / "small.prototxt", "scale: 0.00390625", "mirror: true crop_size: 3")
    edit(nets / "big.prototxt", "scale: 0.00390625", "mean_value: 10 crop_size: 4")
    net = joined(nets, PAIR)
    found = resolve_net(net.net.message, net.net.source, NetState(pb.TRAIN))
    views = [layer for layer in found.layers if layer.type == "Data"]
    assert [layer.name for layer in views] == ["digits", "teacher/digits"]
    for index in range(4):
        small, big = (_images(layer, index) for layer in views)
        for ours, theirs in zip(small, big + 10, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(theirs[0], (3, 3))
            assert any(np.array_equal(ours[0], window) for row in windows for window in row)


def _images(layer: LayerModel, index: int) -> np.ndarray:
    with open_source(layer, seed=3) as source:
        return source.batch(index)[0]


def test_without_common_draws_the_flips_would_differ(nets: Path) -> None:
    """The check of the test above: under names of their own the two views disagree."""
    edit(nets / "small.prototxt", "scale: 0.00390625", "mirror: true")
    edit(nets / "big.prototxt", "scale: 0.00390625", "mirror: true")
    reads = []
    for draws_of in ("", "digits"):
        layer = pb.LayerParameter(name="other", type="Data", top=["data"])
        layer.data_param.source, layer.data_param.batch_size = "digits_lmdb", 32
        layer.transform_param.mirror = True
        if draws_of:
            layer.transform_param.draws_of = draws_of
        reads.append(layer)
    first = pb.LayerParameter()
    first.CopyFrom(reads[0])
    first.name = "digits"
    models = [_model(layer) for layer in (first, *reads)]
    shown = [_images(model, 0) for model in models]
    assert not np.array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(shown[0], shown[2])


def _model(message: pb.LayerParameter) -> LayerModel:
    net = pb.NetParameter(layer=[message])
    return resolve_net(net, SourceMap.empty(), NetState(pb.TRAIN)).layers[0]


def mean_loss(folder: Path, combine: str, *more: str) -> float:
    """The first loss against two teachers that disagree."""
    other = tuple(blob[::-1].copy() for blob in teacher_blobs())
    write_caffemodel(folder / "other.caffemodel", [LayerBlobs("ip", "", other)])
    out = f"{combine}.prototxt"
    second = ("--teacher", "big.prototxt", "--teacher-weights", "other.caffemodel")
    ok("join", *FLAGS, *second, *STUDENT, "--combine", combine, *more, "-o", out)
    log = ok("train", out, "--max-iter", 1, "--device", "cpu")
    loss = next(line for line in log.log if line.startswith("Iteration 0 ("))
    return float(loss.split("loss = ")[1])


@pytest.mark.parametrize("temperature", ["1", "4"])
def test_cross_entropy_to_the_mean_is_the_mean_of_cross_entropies(
    temperature: str, nets: Path
) -> None:
    more = ("--temperature", temperature)
    each = mean_loss(nets, "each", *more)
    assert mean_loss(nets, "probabilities", *more) == pytest.approx(each, rel=1e-5)
    assert abs(mean_loss(nets, "logits", *more) - each) > 1e-4


def test_the_joined_lenets_are_those_of_the_repository(nets: Path) -> None:
    """The first steps of nets/mnist/lenet_joined, made of the two nets by hand."""
    for name in ("train_lmdb", "test_lmdb"):
        write_images(nets / "runs" / "mnist" / name)
    blobs = [
        LayerBlobs(name, "", tuple(small(name, shape) for shape in shapes))
        for name, shapes in LENET.items()
    ]
    write_caffemodel(nets / "lenet.caffemodel", blobs)
    prefixed = [LayerBlobs(f"teacher/{one.name}", "", one.blobs) for one in blobs]
    write_caffemodel(nets / "prefixed.caffemodel", prefixed)
    ok(
        "join", "--teacher", NETS / "mnist/lenet_teacher.prototxt",
        "--teacher-weights", "lenet.caffemodel", "--teacher-accuracy",
        "--student", NETS / "mnist/lenet_student.prototxt", "--student-rename", "student/{name}",
        "--student-name", "student", "--no-solver", "-o", "out.prototxt",
    )  # fmt: skip
    run = ("--max-iter", 2, "--device", "cpu", "--solver", "steps.prototxt")
    (nets / "steps.prototxt").write_text(SOLVER)
    ours = ok("train", "out.prototxt", "--weights", "out.teacher.caffemodel", *run)
    theirs = ok(
        "train", NETS / "mnist/lenet_joined.prototxt", "--weights", "prefixed.caffemodel", *run
    )
    bare = [line.replace("student/loss", "loss") for line in losses(ours)]
    assert bare == losses(theirs)
    assert len(bare) == 6


def small(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights from -0.05 to 0.05."""
    return philox(5, name, len(shape)).random(shape, np.float32) * np.float32(0.1) - np.float32(
        0.05
    )


LENET = {
    "conv1": ((20, 1, 5, 5), (20,)),
    "conv2": ((50, 20, 5, 5), (50,)),
    "ip1": ((500, 800), (500,)),
    "ip2": ((10, 500), (10,)),
}


def write_images(folder: Path) -> None:
    """Records as small as LeNet's, of random pixels."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(64):
        pixels = philox(9, "images", index).integers(0, 256, (1, 28, 28), dtype=np.uint8)
        datum = pb.Datum(channels=1, height=28, width=28, label=index % 10, data=pixels.tobytes())
        records.append((b"%08d" % index, datum.SerializeToString()))
    write_database(folder, records)


def test_without_its_data_a_net_is_joined_unchecked(nets: Path) -> None:
    for name in ("big", "small"):
        edit(nets / f"{name}.prototxt", "digits_lmdb", "nowhere_lmdb")
    ended = ok("join", *FLAGS, *STUDENT, "-o", "out.prototxt")
    assert 'shapes and class counts are not checked: layer "digits": "nowhere_lmdb"' in ended.out
    assert (nets / "out.prototxt").exists()


@pytest.mark.usefixtures("nets")
def test_features_are_matched_and_the_scores_too_unless_told_otherwise() -> None:
    match = ("--match", "ip=ip:L2Distance:0.5")
    ok("join", *FLAGS, *STUDENT, *match, "-o", "out.prototxt")
    log = ok("train", "out.prototxt", "--max-iter", 1, "--device", "cpu")
    assert set(outputs(log)) == {"loss", "ts_loss", "l2distance_loss"}
    ok("join", *FLAGS, *STUDENT, "--loss", "none", *match, "-o", "out.prototxt")
    log = ok("train", "out.prototxt", "--max-iter", 1, "--device", "cpu")
    assert set(outputs(log)) == {"loss", "l2distance_loss"}
    assert said(log, r"l2distance_loss = \S+ \(\* 0.5 =")
    assert said(log, r" loss = (\S+) \(\* 1 =")


def test_flags_say_what_a_description_says(nets: Path) -> None:
    ok(
        "join", *FLAGS, "--teacher-name", "guide", "--teacher-transform", "scale: 0.5",
        "--teacher-weight", 2, "--teacher-logits", "ip", *STUDENT, "--student-rename", "s/i/j/",
        "--loss", "LogitsMSE", "--name", "Both", "--data", "guide", "-o", "flags.prototxt",
    )  # fmt: skip
    (nets / "text.prototxt").write_text("""
    name: "Both" data: "guide" loss { type: "LogitsMSE" }
    teacher { net: "big.prototxt" weights: "big.caffemodel" name: "guide" weight: 2 logits: "ip"
              transform_param { scale: 0.5 } }
    student { net: "small.prototxt" rename: "s/i/j/" }""")
    ok("join", "--description", "text.prototxt", "-o", "file.prototxt")
    texts = [(nets / name).read_text() for name in ("flags.prototxt", "file.prototxt")]
    bodies = [text[text.index('name: "Both"') :] for text in texts]
    assert bodies[0] == bodies[1]
    assert 'bottom: "jp"' in bodies[0]


def test_every_command_takes_a_description_for_its_net(nets: Path) -> None:
    """With the teacher's weights, which the description names; a written net needs the flag."""
    (nets / "pair.prototxt").write_text(PAIR)
    ok("join", *FLAGS, *STUDENT, "-o", "out.prototxt")
    ok("train", "pair.prototxt", "--device", "cpu")
    (student,) = (nets / "runs").glob("*_iter_4.caffemodel")
    given = ("--device", "cpu", "--iterations", 2, "--json")
    both = f"out.teacher.caffemodel,{student}"
    direct = ok("test", "pair.prototxt", "--weights", student, *given, "-").out
    assert direct == ok("test", "out.prototxt", "--weights", both, *given, "-").out
    assert '"agreement"' in direct
    ok("check", "pair.prototxt", "--device", "cpu")
    exported = ("--runs", 1, "--iterations", 1, "--device", "cpu")
    ok("export", "pair.prototxt", "--weights", student, "-o", "one/net", *exported)
    ok("export", "out.prototxt", "--weights", both, "-o", "two/net", *exported)
    one, two = (nets / folder / "net.caffemodel" for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    ok("data", "soft-labels", "pair.prototxt", "--blob", "teacher/ip", "-o", "answers.npz")
    swept = ("--set", "lambda=0.5,0.9", "--max-iter", 1, "--device", "cpu", "--out", "swept")
    ok("sweep", "pair.prototxt", *swept)


MODELS = Path(__file__).parent / "golden" / "onnx"
SEEN = """
layer { name: "seen" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 }
    data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_an_onnx_model_is_named_as_a_teacher(workplace: Path) -> None:
    shutil.copy(MODELS / "residual.onnx", workplace)
    (workplace / "small.prototxt").write_text(SEEN)
    ended = ok("join", "--teacher", "residual.onnx", "--student", "small.prototxt", "-o", "o.txt")
    assert "still needed" not in ended.out
    assert "Frozen, with the weights of its model." in (workplace / "o.txt").read_text()
    trained = ok("train", "o.txt", "--device", "cpu", "--max-iter", 3)
    assert outputs(trained)["ts_loss"] > 0
    assert said(trained, r"teacher/residual +loaded, frozen")


def test_a_model_s_closing_softmax_is_left_out(workplace: Path) -> None:
    model = onnx.load(MODELS / "residual.onnx")
    logits = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("Softmax", [logits], ["p"]))
    model.graph.output[0].name = "p"
    onnx.save(model, workplace / "soft.onnx")
    (workplace / "small.prototxt").write_text(SEEN)
    ok("join", "--teacher", "soft.onnx", "--student", "small.prototxt", "-o", "o.txt")
    assert f'output: "{logits}"' in (workplace / "o.txt").read_text()


@pytest.mark.parametrize(
    ("edited", "why"),
    [
        ("open", 'the shape of its input "x" is open [model-as-net]'),
        ("cut", '"bad.onnx" is not an ONNX model, or is cut short [not-a-model]'),
    ],
)
def test_a_model_that_cannot_be_a_net_is_told_why(workplace: Path, edited: str, why: str) -> None:
    model = onnx.load(MODELS / "residual.onnx")
    if edited == "open":
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    data = model.SerializeToString()
    (workplace / "bad.onnx").write_bytes(data[: len(data) // 2] if edited == "cut" else data)
    (workplace / "small.prototxt").write_text(SEEN)
    ended = run("join", "--teacher", "bad.onnx", "--student", "small.prototxt", "-o", "o.txt")
    assert ended.code == 1
    assert why in ended.err
    assert not (workplace / "o.txt").exists()
