"""Sweeps: students side by side are the students of their own runs, and what comes out of it."""

from __future__ import annotations

import csv
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from small_nets import JOINED, LOG_LINE, WEIGHTS, Ended, edit, ok, run, said

from kdnet.compile.program import Program
from kdnet.errors import Diagnostic, RunError
from kdnet.runtime import CaffeLog, TrainOptions, sweep, sweep_loop
from kdnet.runtime.device import Device
from kdnet.runtime.plan import make_plan
from kdnet.runtime.sweep_grid import Grid, make_grid
from kdnet.runtime.sweep_groups import groups_of, students_at_once
from kdnet.runtime.sweep_students import compile_students
from kdnet.runtime.sweep_values import read_variable
from kdnet.weights import read_weights

SWEEP = ("sweep", "joined.prototxt", *WEIGHTS, "--device", "cpu", "--out", "out")
LAMBDAS = ("--set", "lambda=0:1:0.5")


def swept(*more: object) -> Ended:
    return ok(*SWEEP, *more)


def rows(folder: Path, name: str = "results") -> list[dict[str, str]]:
    with (folder / "out" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def blobs(path: Path) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{index}": blob
        for layer in read_weights(str(path)).layers
        for index, blob in enumerate(layer.blobs)
    }


def own_run(folder: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The weights and the last test of ``kdnet train`` on a setting's own net and solver."""
    out = folder / "own"
    solver = f"out/nets/{name}_solver.prototxt"
    ended = ok("train", solver, *WEIGHTS, "--device", "cpu", "--out", out)
    scores = re.findall(r"Test net output #\d+: (\S+) = (\S+)", "\n".join(ended.log))
    (path,) = out.glob("*.caffemodel")
    found = blobs(path)
    path.unlink()
    return found, {name: float(value) for name, value in scores}


def file_name(row: dict[str, str], *, seeds: bool) -> str:
    """What a setting's files are called."""
    columns = list(row)
    names = columns[: columns.index("seed") + seeds]
    return re.sub(r"[^\w.=+-]", "_", ",".join(f"{name}={row[name]}" for name in names))


def assert_each_is_its_own_run(folder: Path, *, seeds: bool = False) -> None:
    last = {file_name(row, seeds=seeds): row for row in rows(folder)}
    assert len(last) > 1
    seen: list[bytes] = []
    for name, row in last.items():
        weights, scores = own_run(folder, name)
        mine = blobs(folder / "out" / "snapshots" / f"{name}.caffemodel")
        assert mine.keys() == weights.keys()
        for blob, value in weights.items():
            np.testing.assert_allclose(mine[blob], value, rtol=1e-5, atol=1e-6)
        for report in ("accuracy", "loss"):
            assert math.isclose(float(row[report]), scores[report], rel_tol=1e-5), (name, report)
        seen.append(b"".join(value.tobytes() for value in mine.values()))
    assert len(set(seen)) == len(seen)


def test_each_student_is_that_of_its_own_run(joined: Path) -> None:
    """Dropout, iter_size, weight decay and a second seed included."""
    swept(*LAMBDAS, "--seeds", 2, "--snapshots", "--nets")
    assert_each_is_its_own_run(joined, seeds=True)


@pytest.mark.parametrize(
    "variables",
    [
        ("base_lr=0.05,0.1,0.2", "weight_decay=0,0.01"),
        ("temperature=1,4", "student/drop1.dropout_ratio=0.1,0.5"),
        ("student/ip1.num_output=4,8", "ts_loss.loss_weight=0.1,0.4"),
        ("student/ip1.param.0.lr_mult=0.5,1", "student/relu1.type=ReLU,Sigmoid"),
        ("student/ip2.weight_filler.type=xavier,msra", "gamma=0.1,0.5"),
        ("momentum=0,0.9", "max_iter=3,6"),
        ("digits.data_param.batch_size=6,10", "base_lr=0.1,0.2"),
        ("clip_gradients=-1,0.05", "lambda=0,1"),
    ],
    ids=lambda variables: variables[0].split("=")[0],
)
def test_whatever_varies_each_student_is_that_of_its_own_run(
    joined: Path, variables: tuple[str, str]
) -> None:
    swept(*(part for v in variables for part in ("--set", v)), "--snapshots", "--nets")
    assert_each_is_its_own_run(joined)
