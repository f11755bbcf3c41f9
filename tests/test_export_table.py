"""The teacher-to-student table of ``kdnet export``: what is counted, timed and scored."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from small_nets import JOINED, JOINED_NET, Ended, edit, ok, run, said

from kdnet.compile.deploy.branches import Label
from kdnet.runtime.export import measure as export_measure
from kdnet.runtime.export.measure import Latency
from kdnet.runtime.export.table import Row, Table
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


def masked(ended: Ended) -> str:
    """The table with latencies as ``L``, its columns two spaces apart."""
    text = re.sub(r"\d+\.\d{3} \(\d+\.\d{3}-\d+\.\d{3}\)", "L", ended.out)
    text = re.sub(r"( ratio .* )[\d.]+( +[\d.]+)$", r"\1L\2", text, flags=re.M)
    return re.sub(" {2,}", "  ", text).strip()


TABLE = """
net  part  parameters  MACs  FLOPs  caffemodel  onnx  latency ms  top-1
teacher/ip  teacher  51  48  99  263  673  L  1.0000
student/ip2  student  163  152  323  762  1,637  L  1.0000
student/ip2 / teacher/ip  ratio  3.1961  3.1667  3.2626  2.8973  2.4324  L  1.0000
MACs and FLOPs of one item; caffemodel and onnx in bytes
latency: median (10th to 90th percentile) of 2 runs at batch 1 on cpu
top-1: of 60 TEST items
out/s.prototxt
out/s.caffemodel
out/s.onnx
"""


@pytest.mark.usefixtures("trained")
def test_the_table() -> None:
    ended = ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "out/s", "--iterations", "6")
    assert masked(ended) == TABLE.strip()


@pytest.mark.usefixtures("trained")
def test_accuracies_are_those_of_kdnet_test() -> None:
    layers = read_weights("run_iter_6.caffemodel").layers
    noisy = [
        LayerBlobs(
            layer.name,
            layer.type,
            tuple(b + philox(1, layer.name).standard_normal(b.shape) for b in layer.blobs),
        )
        for layer in layers
    ]
    write_caffemodel("noisy.caffemodel", noisy)
    weights = ("--weights", "noisy.caffemodel,teacher.caffemodel")
    ended = ok(*EXPORT, *weights, "-o", "s", "--json", "--iterations", "6")
    found = json.loads(ended.out)
    top1 = {net["net"]: net["top1"] for net in found["nets"]}
    scored = ok("test", "joined.prototxt", *weights, "--iterations", "6", "--device", "cpu")
    known = float(re.search(r"accuracy = (\S+)", scored.out).group(1))
    assert 0 < known < 1
    assert top1["student/ip2"] == pytest.approx(known, abs=1e-6)
    assert found["items"] == 60
    assert found["files"] == ["s.prototxt", "s.caffemodel", "s.onnx"]
    assert max(found["differences"]["student/ip2"].values()) < 1e-5
    student, teacher = (
        next(n for n in found["nets"] if n["part"] == p) for p in ("student", "teacher")
    )
    assert found["ratios"][0]["parameters"] == student["parameters"] / teacher["parameters"]
    assert student["onnx_bytes"] == os.path.getsize("s.onnx")
    assert student["caffemodel_bytes"] == os.path.getsize("s.caffemodel")
    assert teacher["caffemodel_bytes"] < os.path.getsize("teacher.caffemodel") + 16
    low, median, high = (student["latency"][f"{name}_ms"] for name in ("low", "median", "high"))
    assert 0 < low <= median <= high


@pytest.mark.usefixtures("trained")
def test_without_data_or_the_teachers_weights_the_rest_is_told() -> None:
    edit(Path("joined.prototxt"), '"digits_lmdb"', '"nowhere"')
    shape = ("--input-shape", "data=1x4x4")
    ended = ok(*EXPORT, *SNAPSHOT, *shape, "-o", "s")
    assert said(ended, "accuracy is not measured: .*missing-data-source|accuracy is not measured")
    assert said(ended, 'the accuracy of teacher "teacher/ip" is not known')
    assert ended.out.splitlines()[1].split()[-1] == "-"
    assert "TEST items" not in ended.out
    strict = run(*EXPORT, *SNAPSHOT, *shape, "-o", "s", "--iterations", "2")
    assert strict.code == 1
    assert "[missing-data-source]" in strict.faults


def test_a_teacher_that_cannot_be_made_is_left_out(trained: Path) -> None:
    blind = """
layer { name: "ones" type: "Power" bottom: "data" top: "ones" power_param { scale: 0 shift: 1 } }
layer { name: "blind" type: "InnerProduct" bottom: "ones" top: "blind"
  param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param { num_output: 3 } }
layer { name: "blind_acc" type: "Accuracy" bottom: "blind" bottom: "label" top: "blind_acc"
  include { phase: TEST } }
"""
    (trained / "joined.prototxt").write_text(JOINED_NET + blind)
    ended = ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "s")
    assert said(ended, 'teacher "blind" is not in the table: "blind" depends on no data')
    assert "blind" not in ended.out


@pytest.mark.usefixtures("trained")
def test_the_training_data_need_not_be_there() -> None:
    text = Path("joined.prototxt").read_text()
    Path("joined.prototxt").write_text(text.replace('"digits_lmdb"', '"nowhere"', 1))
    ended = ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "s", "--iterations", "2")
    assert said(ended, "losses of the TRAIN net do not count: ")
    assert re.search(r"^student/ip2 +student .* 1\.0000$", ended.out, re.M)


def test_a_teacher_of_one_batch_size_is_weighed_only(trained: Path) -> None:
    fixed = """
layer { name: "rows" type: "Reshape" bottom: "data" top: "rows"
  include { phase: TEST } reshape_param { shape { dim: 10 dim: 16 } } }
layer { name: "teacher/fixed" type: "InnerProduct" bottom: "rows" top: "teacher/fixed"
  param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param { num_output: 3 }
  include { phase: TEST } }
layer { name: "t_acc" type: "Accuracy" bottom: "teacher/fixed" bottom: "label" top: "t_acc"
  include { phase: TEST } }
"""
    (trained / "joined.prototxt").write_text(JOINED_NET + fixed)
    ended = ok(*EXPORT, *SNAPSHOT, *TEACHER, "-o", "s")
    assert said(ended, 'teacher "teacher/fixed" is not measured')
    row = next(line for line in ended.out.splitlines() if line.startswith("teacher/fixed "))
    assert row.split()[:3] == ["teacher/fixed", "teacher", "51"]


ALIGNED = """
net    part     parameters    MACs   FLOPs  caffemodel   onnx           latency ms   top-1
t      teacher      10,000       -       -      40,000      -                    -  0.5000
s      student       5,000  1.500k  2.000G      20,000  9,000  0.500 (0.250-1.000)       -
s / t  ratio        0.5000       -       -      0.5000      -                    -       -
MACs and FLOPs of one item; caffemodel and onnx in bytes
latency: median (10th to 90th percentile) of 3 runs at batch 8 on cuda:0
"""


def test_numbers_stand_in_columns_and_missing_ones_are_dashes() -> None:
    teacher = Row("t", "teacher", 10_000, None, None, 40_000, None, None, 0.5)
    latency = Latency(0.5, 0.25, 1.0)
    student = Row("s", "student", 5_000, 1_500, 2_000_000_000, 20_000, 9_000, latency, None)
    table = Table((teacher, student), "cuda:0", 8, 3, 0)
    assert table.text() == ALIGNED.strip()


def test_a_tie_counts_against_the_model() -> None:
    class Always:
        def run(self, _feeds):
            return np.array([[1, 1, 0], [2, 1, 0], [0, 0, 3], [9, 9, 9]], np.float32)

    label = Label("label", 1, 255)
    contender = export_measure.Contender(Always(), {"x": "data"}, label)
    tally = export_measure.Tally()
    batch = {"data": np.zeros((4, 1)), "label": np.array([0, 0, 2, 255], np.float32)}
    export_measure._count(contender, batch, tally)
    assert (tally.right, tally.counted) == (2, 3)
    assert export_measure.Tally().share == 0
