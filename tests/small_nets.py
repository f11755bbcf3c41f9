"""Small nets, their data and their weights, and how tests run commands on them."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdnet.cli import main
from kdnet.data.lmdb_writer import write_database
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, philox, write_caffemodel

CLASSES = 3
PIXELS = 16
LOG_LINE = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+:\d+\] ")

DATA = """
layer {
  name: "digits" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "digits_lmdb" backend: LMDB batch_size: 6 }
}
layer {
  name: "digits" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "digits_lmdb" backend: LMDB batch_size: 10 }
}
"""
STUDENT = """
layer {
  name: "student/ip1" type: "InnerProduct" bottom: "data" top: "student/ip1"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } }
}
layer { name: "student/relu1" type: "ReLU" bottom: "student/ip1" top: "student/ip1" }
layer {
  name: "student/drop1" type: "Dropout" bottom: "student/ip1" top: "student/ip1"
  dropout_param { dropout_ratio: 0.25 }
}
layer {
  name: "student/ip2" type: "InnerProduct" bottom: "student/ip1" top: "student/ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
"""
TEACHER = """
layer {
  name: "teacher/ip" type: "InnerProduct" bottom: "data" top: "teacher/ip"
  param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 3 }
}
"""
LOSSES = """
layer {
  name: "accuracy" type: "Accuracy" bottom: "student/ip2" bottom: "label" top: "accuracy"
  include { phase: TEST }
}
layer {
  name: "loss" type: "SoftmaxWithLoss" bottom: "student/ip2" bottom: "label" top: "loss"
  loss_weight: 0.75
}
"""
TS_LOSS = """
layer {
  name: "ts_loss" type: "TeacherStudentCrossEntropy"
  bottom: "student/ip2" bottom: "teacher/ip" top: "ts_loss"
  include { phase: TRAIN } loss_weight: 0.25
  teacher_student_cross_entropy_param { temperature: 2 }
}
"""
STUDENT_NET = f'name: "Student"\n{DATA}{STUDENT}{LOSSES}'
JOINED_NET = f'name: "Joined"\n{DATA}{TEACHER}{STUDENT}{LOSSES}{TS_LOSS}'
SOLVER = """
base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 4 momentum: 0.9 weight_decay: 0.001
max_iter: 6 iter_size: 2 display: 2 test_iter: 2 test_interval: 3 snapshot_prefix: "run"
random_seed: 5
"""
WEIGHTS = ("--weights", "teacher.caffemodel")
JOINED = ("train", "joined.prototxt", *WEIGHTS, "--device", "cpu")


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def log(self) -> list[str]:
        """The texts of the log lines, without their stamps."""
        found = [line for line in self.err.splitlines() if LOG_LINE.match(line)]
        return [LOG_LINE.sub("", line) for line in found]

    @property
    def faults(self) -> str:
        """Everything on stderr that is no log line."""
        kept = [line for line in self.err.splitlines() if not LOG_LINE.match(line)]
        return "\n".join(kept) + "\n" if kept else ""


def run(*arguments: object) -> Ended:
    """Run ``kdnet`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def ok(*arguments: object) -> Ended:
    """Run a command that must succeed."""
    ended = run(*arguments)
    assert ended.code == 0, ended.err
    return ended


def process(folder: Path, *arguments: object, code: str = "") -> Ended:
    """Run ``kdnet``, or the program ``code``, as a process of its own in ``folder``."""
    start = ["-c", code] if code else ["-m", "kdnet"]
    command = [sys.executable, *start, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def said(ended: Ended, pattern: str) -> bool:
    """Whether a log line has the pattern."""
    return any(re.search(pattern, line) for line in ended.log)


def edit(path: Path, old: str, new: str) -> None:
    """Replace what the file must hold."""
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def write_digits(folder: Path, count: int = 60) -> None:
    """An LMDB of ``count`` random 1 x 4 x 4 images, each brighter in the row of its class."""
    images = philox(3, "digits").integers(0, 96, (count, 1, 4, 4), dtype=np.uint8)
    records = []
    for index, image in enumerate(images):
        label = index % CLASSES
        image[0, label] += 128
        datum = pb.Datum(channels=1, height=4, width=4, label=label, data=image.tobytes())
        records.append((b"%08d" % index, datum.SerializeToString()))
    write_database(folder, records)


def teacher_blobs() -> tuple[np.ndarray, np.ndarray]:
    """Weights that know the classes of :func:`write_digits`."""
    weight = np.zeros((CLASSES, 4, 4), np.float32)
    for label in range(CLASSES):
        weight[label, label] = 1
    return weight.reshape(CLASSES, PIXELS), np.full(CLASSES, 0.25, np.float32)


def write_assets(folder: Path) -> None:
    """Data and weight files, whole and spoilt."""
    write_digits(folder / "digits_lmdb")
    write_caffemodel(
        folder / "teacher.caffemodel", [LayerBlobs("teacher/ip", "InnerProduct", teacher_blobs())]
    )
    whole = (folder / "teacher.caffemodel").read_bytes()
    (folder / "truncated.caffemodel").write_bytes(whole[: len(whole) // 2])
    (folder / "foreign.caffemodel").write_bytes(b"\x80\x02}q\x00X\x05\x00\x00\x00state")
    corrupt = [(b"%08d" % index, b"\x08\x01\x10\x04\x18\x04\x22\x7f") for index in range(4)]
    good = pb.Datum(channels=1, height=4, width=4, label=1, data=bytes(16)).SerializeToString()
    write_database(folder / "corrupt_lmdb", [(b"00000000", good), *corrupt[1:]])
    (folder / "junk.solverstate").write_bytes(b"junk")
