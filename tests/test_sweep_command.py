"""The command ``kdnet sweep``: what diverges, resumes and fits, its tables and its plot."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from small_nets import JOINED, LOG_LINE, WEIGHTS, edit, ok, run, said
from test_sweep import LAMBDAS, SWEEP, grid_of, programs, rows, swept

from kdnet.errors import Diagnostic, RunError
from kdnet.runtime.device import Device
from kdnet.runtime.sweep import loop as sweep_loop
from kdnet.runtime.sweep import run as sweep
from kdnet.runtime.sweep.groups import groups_of, students_at_once


def test_what_diverges_does_not_stop_the_others(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "max_iter: 6", "max_iter: 30")
    ended = swept("--set", "base_lr=1e18,0.1,1e19")
    assert said(ended, r"Iteration \d+, base_lr=1e18 diverged: its numbers are not finite")
    last = {row["base_lr"]: row for row in rows(joined)}
    assert last["1e18"]["accuracy"] == last["1e18"]["loss"] == "nan"
    assert float(last["0.1"]["accuracy"]) > 0.8
    assert [row["diverged"] for row in rows(joined, "summary")] == ["1", "0", "1"]
    assert [line.split()[-1] for line in ended.out.splitlines()[1:]] == [
        "diverged",
        "*",
        "diverged",
    ]
    ok("train", "joined.prototxt", *WEIGHTS, "--device", "cpu", "--max-iter", 30)


def test_a_sweep_of_which_all_diverge_ends_with_a_table(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "max_iter: 6", "max_iter: 1000000")
    ended = swept("--set", "base_lr=1e18,1e19", "--json")
    found = json.loads(ended.out)
    assert found["best"] is None
    assert [entry["mean"]["loss"] for entry in found["settings"]] == [None, None]


def test_finished_settings_are_not_trained_again(joined: Path) -> None:
    swept(*LAMBDAS)
    before = rows(joined)
    again = swept(*LAMBDAS)
    assert said(again, "3 of 3 settings are in .* already")
    assert rows(joined) == before
    more = swept("--set", "lambda=0:1:0.25")
    assert said(more, "3 of 5 settings are in .* already")
    assert [row for row in rows(joined) if row["lambda"] in ("0", "0.5", "1")] == before
    assert len(rows(joined)) == 5 * 3
    edit(joined / "joined.prototxt", "temperature: 2", "temperature: 3")
    other = swept(*LAMBDAS)
    assert not said(other, "already")
    assert len(rows(joined)) == 5 * 3
    assert not said(swept(*LAMBDAS, "--fresh"), "already")
    assert len(rows(joined)) == 3 * 3


@pytest.mark.usefixtures("joined")
def test_an_interrupted_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = swept(*LAMBDAS, "--side-by-side", 1, "--out", "whole")
    step, steps = sweep_loop.StudentTrainer._step, []

    def interrupted(self, feed, seed, tell) -> None:
        step(self, feed, seed, tell)
        steps.append(self.iteration)
        if len(steps) == 10:
            self._stop.signal = 15

    with monkeypatch.context() as patched:
        patched.setattr(sweep_loop.StudentTrainer, "_step", interrupted)
        ended = run(*SWEEP, *LAMBDAS, "--side-by-side", 1)
    assert ended.code == 128 + 15
    assert "the same command goes on" in ended.err
    again = swept(*LAMBDAS, "--side-by-side", 1)
    assert said(again, "1 of 3 settings are in .* already")
    assert again.out == whole.out


def test_a_graph_that_does_not_fit_is_halved(
    joined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = sweep.compile_students, []

    def small(plan, group, settings, *more):
        tried.append(len(settings))
        if len(settings) > 1:
            raise RunError(Diagnostic("out-of-memory", "the graph does not start"))
        return real(plan, group, settings, *more)

    monkeypatch.setattr(sweep, "compile_students", small)
    ended = swept("--set", "lambda=0:1:0.25")
    assert tried == [5, 2, 1, 1, 1, 1, 1]
    assert said(ended, r"for 5 students in one graph: now 2 at a time \[fewer-students\]")
    assert len(rows(joined)) == 5 * 3


@pytest.mark.usefixtures("joined")
def test_one_student_that_does_not_fit_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_more):
        raise RunError(Diagnostic("out-of-memory", "the graph does not start"))

    monkeypatch.setattr(sweep, "compile_students", none)
    ended = run(*SWEEP, *LAMBDAS)
    assert ended.code == 3
    assert "[out-of-memory]" in ended.err


@pytest.mark.usefixtures("joined")
def test_memory_bounds_the_students_of_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    (group,) = groups_of(grid_of("lambda=0:1:0.1").settings)
    assert students_at_once(group, None, Device("cpu")) == 11
    size = "kdnet.runtime.sweep.groups.student_bytes"
    free = "kdnet.runtime.sweep.groups.available_bytes"
    monkeypatch.setattr(size, lambda _group: 2**30)
    for gigabytes, students in ((7, 3), (1, 1), (100, 11)):
        monkeypatch.setattr(free, lambda _device, size=gigabytes: size * 2**30)
        assert students_at_once(group, None, Device("cpu")) == students
    assert students_at_once(group, 5, Device("cpu")) == 5
    monkeypatch.setattr(free, lambda _device: None)
    assert students_at_once(group, None, Device("cuda")) == 11


def test_the_table_has_means_and_spreads(joined: Path) -> None:
    ended = swept(*LAMBDAS, "--seeds", 3, "--json", "--by", "loss")
    found = json.loads(ended.out)
    assert (found["by"], found["highest"], found["seeds"]) == ("loss", False, [5, 6, 7])
    assert found["students_per_graph"] == 9
    scores: dict[str, list[float]] = {}
    for row in rows(joined):
        if row["iteration"] == "6":
            scores.setdefault(row["lambda"], []).append(float(row["loss"]))
    for entry, row in zip(found["settings"], rows(joined, "summary"), strict=True):
        own = scores[entry["values"]["lambda"]]
        assert entry["mean"]["loss"] == pytest.approx(np.mean(own))
        assert entry["std"]["loss"] == pytest.approx(np.std(own, ddof=1))
        assert float(row["loss_mean"]) == pytest.approx(np.mean(own))
        assert entry["n"] == 3
    best = min(found["settings"], key=lambda entry: entry["mean"]["loss"])
    assert found["best"] == best


def test_the_plot_has_a_line_a_setting(joined: Path) -> None:
    swept(*LAMBDAS, "--set", "temperature=1,4", "--seeds", 2)
    svg = ET.fromstring((joined / "out" / "plot.svg").read_text())  # noqa: S314  # our own
    name = "{http://www.w3.org/2000/svg}"
    lines = svg.findall(f"{name}polyline")
    titles = [line.findtext(f"{name}title") for line in lines]
    curves = [f"lambda={a}, temperature={b}" for a in ("0", "0.5", "1") for b in ("1", "4")]
    assert titles == [*curves, "temperature=1", "temperature=4"]
    assert [len(line.get("points", "").split()) for line in lines] == [3] * 8
    texts = [text.text for text in svg.findall(f"{name}text")]
    assert {"iteration", "accuracy", "lambda", "accuracy at the end"} <= set(texts)


def test_a_net_without_a_test_net_is_judged_by_its_losses(joined: Path) -> None:
    for line in ("test_iter: 2 test_interval: 3 ",):
        edit(joined / "joined_solver.prototxt", line, "")
    ended = swept(*LAMBDAS)
    assert [row["iteration"] for row in rows(joined)][:3] == ["2", "4", "6"]
    assert ended.out.split()[:4] == ["lambda", "n", "loss", "ts_loss"]


def test_a_sweep_of_seeds_alone_has_one_line(joined: Path) -> None:
    ended = swept("--seeds", 2)
    assert [line.split()[0] for line in ended.out.splitlines()] == ["n", "2"]
    assert "[seed=6]" not in (joined / "out" / "results.csv").read_text()


def test_a_single_setting_keeps_its_names(joined: Path) -> None:
    step, _ = programs(joined, "0.5")
    assert "student/ip1/weight" in step.reads
    swept("--set", "lambda=0.25")
    assert said(ok(*JOINED), re.escape(f"accuracy = {float(rows(joined)[-1]['accuracy']):g}"))


@pytest.mark.usefixtures("joined")
def test_log_lines_have_their_shape() -> None:
    lines = swept(*LAMBDAS).err.splitlines()
    assert all(LOG_LINE.match(line) for line in lines)
