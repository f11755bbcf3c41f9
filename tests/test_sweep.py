"""Sweeps: students side by side are the students of their own runs, and what comes out of it."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
from small_nets import WEIGHTS, Ended, ok, said

from kdnet.compile.program import Program
from kdnet.runtime import CaffeLog, TrainOptions
from kdnet.runtime.device import Device
from kdnet.runtime.plan import make_plan
from kdnet.runtime.sweep.grid import Grid, make_grid
from kdnet.runtime.sweep.groups import groups_of
from kdnet.runtime.sweep.students import compile_students
from kdnet.runtime.sweep.values import read_variable
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
        ("base_lr=0.05,0.2", "weight_decay=0,0.01"),
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


def test_a_schedule_of_a_copied_layer_moves_every_copy(joined: Path) -> None:
    """One that begins at the net's own value begins at each student's own."""
    schedules = """
    schedule { layer: "ts_*" field: "temperature" value: 5 }
    schedule { layer: "student/ip2" field: "lr_mult" policy: "piecewise" value: [1, 0.5] at: 3 }
    """
    with (joined / "joined_solver.prototxt").open("a") as file:
        file.write(schedules)
    swept("--set", "temperature=1,2", *LAMBDAS, "--snapshots", "--nets")
    with pytest.raises(AssertionError):  # lambda 0 is the same at every temperature
        assert_each_is_its_own_run(joined)
    swept("--set", "temperature=1,2", "--set", "lambda=0.5,1", "--snapshots", "--nets", "--fresh")
    assert_each_is_its_own_run(joined)


def test_students_one_after_another_are_the_same(joined: Path) -> None:
    for number in ("1", "3", "auto"):
        swept(*LAMBDAS, "--seeds", 2, "--side-by-side", number, "--fresh")
        found = [{k: v for k, v in row.items() if k != "key"} for row in rows(joined)]
        keyed = sorted(found, key=lambda row: (row["lambda"], row["seed"], int(row["iteration"])))
        if number == "1":
            first = keyed
        for one, other in zip(first, keyed, strict=True):
            assert one["accuracy"] == other["accuracy"]
            assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)


def programs(folder: Path, values: str) -> tuple[Program, Program]:
    """The step and the test graph of a sweep of ``values``."""
    grid = grid_of("lambda=" + values)
    (group,) = groups_of(grid.settings)
    made = compile_students(
        plan(), group, grid.settings, Device("cpu"), [read_weights(str(folder / WEIGHTS[1]))]
    )
    return made.training.main, made.evaluations[0].program


def plan(path: str = "joined.prototxt"):
    return make_plan(TrainOptions(path=path, weights=(WEIGHTS[1],)), CaffeLog())


def grid_of(*variables: str) -> Grid:
    return make_grid(
        plan(), [read_variable(text) for text in variables], 1, provider="cpu", digest=b""
    )


def test_the_teacher_is_there_once_and_each_student_adds_as_much(joined: Path) -> None:
    counts, teachers = [], []
    for values in ("0.1", "0.1,0.2", "0.1,0.2,0.3", "0.1,0.2,0.3,0.4"):
        step, _ = programs(joined, values)
        names = [node.name for node in step.model.graph.node]
        counts.append(len(names))
        teachers.append(sum(name.startswith("teacher/ip/") for name in names))
        assert step.frozen == ("teacher/ip/weight", "teacher/ip/bias")
        assert list(step.data) == ["data", "label"]
    assert len(set(teachers)) == 1
    assert teachers[0] > 0
    assert counts[2] - counts[1] == counts[3] - counts[2] > 10


def test_copies_have_the_settings_in_their_names(joined: Path) -> None:
    step, test = programs(joined, "0.1,0.2")
    assert "student/ip1[lambda=0.1]/weight" in step.reads
    assert {report.blob for report in test.reports} >= {"accuracy[lambda=0.2]", "teacher/ip"}


def test_clipping_takes_a_graph_for_each_student(joined: Path) -> None:
    """The norm goes over all weights of a graph, so that students in one would meet in it."""
    with (joined / "joined_solver.prototxt").open("a") as file:
        file.write("clip_gradients: 0.05\n")
    ended = swept(*LAMBDAS, "--side-by-side", 3, "--snapshots", "--nets")
    assert said(ended, r"3 settings, 1 students in one graph.*clip_gradients takes the norm")
    assert_each_is_its_own_run(joined)
