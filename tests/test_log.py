"""Log lines: what people's parsers look for, on a pipe, in a file and on a terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_nets import JOINED as TRAIN
from small_nets import LOG_LINE, Ended, process, run

from kdnet.compile import Report
from kdnet.errors import Diagnostic, KdnetError, Span
from kdnet.runtime import CaffeLog
from kdnet.runtime.log import score_text

GLOG = re.compile(
    r"I(?P<month>\d\d)(?P<day>\d\d) (?P<time>\d\d:\d\d:\d\d\.\d{6}) +(?P<thread>\d+) "
    r"(?P<file>[\w.]+):(?P<line>\d+)\] (?P<text>.*)"
)
# What Caffe's tools/extra/parse_log.py and the scripts of the first experiment search for.
ITERATION = re.compile(r"Iteration (\d+)")
RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)")
TRAIN_OUTPUT = re.compile(r"Train net output #(\d+): (\S+) = ([.\deE+-]+)")
TEST_OUTPUT = re.compile(r"Test net output #(\d+): (\S+) = ([.\deE+-]+)")
ACCURACY = re.compile(r"(?<=Test net output #[012]: accuracy = )[0-9.]+")


def parsed(lines: list[str]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Rows of training and of testing, read line by line as parse_log.py does."""
    rows: dict[str, list[dict[str, float]]] = {"train": [], "test": []}
    iteration, rate = -1.0, float("nan")
    for line in lines:
        if found := ITERATION.search(line):
            iteration = float(found.group(1))
        if found := RATE.search(line):
            rate = float(found.group(1))
            rows["train"][-1]["lr"] = rate
        for kind, pattern in (("train", TRAIN_OUTPUT), ("test", TEST_OUTPUT)):
            if found := pattern.search(line):
                if not rows[kind] or rows[kind][-1]["iteration"] != iteration:
                    rows[kind].append({"iteration": iteration})
                rows[kind][-1][found.group(2)] = float(found.group(3))
    return rows["train"], rows["test"]


@pytest.mark.usefixtures("joined")
def test_a_run_is_read_by_the_parsers_that_people_have() -> None:
    lines = run(*TRAIN).err.splitlines()
    assert all(GLOG.fullmatch(line) for line in lines), lines
    train, test = parsed(lines)
    assert [row["iteration"] for row in train] == [0, 2, 4]
    assert all({"loss", "ts_loss", "lr"} <= row.keys() for row in train)
    assert [row["iteration"] for row in test] == [0, 3, 6]
    assert len([line for line in lines if ACCURACY.search(line)]) == 3


@pytest.mark.usefixtures("joined")
def test_the_lines_of_a_run_come_in_caffe_s_order() -> None:
    kept = re.compile(
        r"Finetuning|Solving|Learning Rate|Testing|accuracy|loss = |lr = |Snapshotting|Done"
    )
    numbers = re.compile(r"(?<=[ (])\d[\d.e+-]*(?=[ s/)]|$)")
    found = [numbers.sub("X", line) for line in run(*TRAIN, "--max-iter", 2).log]
    assert [line for line in found if kept.search(line)] == [
        "Finetuning from teacher.caffemodel",
        "Solving Joined",
        "Learning Rate Policy: step",
        "Iteration 0, Testing net (#0)",
        "    Test net output #0: accuracy = X",
        "    Test net output #1: loss = X (* X = X loss)",
        "Iteration X (X iter/s, Xs/2 iters), loss = X",
        "    Train net output #0: loss = X (* X = X loss)",
        "    Train net output #1: ts_loss = X (* X = X loss)",
        "Iteration 0, lr = X",
        "Snapshotting to binary proto file run_iter_2.caffemodel",
        "Snapshotting solver state to binary proto file run_iter_2.solverstate",
        "Iteration 2, loss = X",
        "Optimization Done.",
    ]


@pytest.mark.usefixtures("joined")
def test_the_places_are_those_of_caffe_s_source() -> None:
    places = {}
    for line in run(*TRAIN).err.splitlines():
        found = GLOG.fullmatch(line)
        assert found
        words = re.sub(r"[\d.]+", "", found.group("text")).split()
        places[" ".join(words[:2])] = f"{found.group('file')}:{found.group('line')}"
    assert places["Train net"] == "solver.cpp:237"
    assert places["Test net"] == "solver.cpp:397"
    assert places["Iteration ,"] in {"sgd_solver.cpp:105", "solver.cpp:330", "solver.cpp:310"}
    assert places["Iteration ("] == "solver.cpp:218"
    assert places["Snapshotting to"] == "solver.cpp:447"
    assert places["Finetuning from"] == "caffe.cpp:155"


@pytest.mark.parametrize(
    ("weight", "value", "text"),
    [
        (1, 2.302585, "loss = 2.30258 (* 1 = 2.30258 loss)"),
        (0.1, 7.343971, "loss = 7.34397 (* 0.1 = 0.734397 loss)"),
        (0, 0.1005, "loss = 0.1005"),
        (1e-6, 123456789, "loss = 1.23457e+08 (* 1e-06 = 123.457 loss)"),
        (-1, 0, "loss = 0 (* -1 = -0 loss)"),
        (1, float("nan"), "loss = nan (* 1 = nan loss)"),
    ],
)
def test_numbers_are_printed_as_caffe_s_streams_print_them(
    weight: float, value: float, text: str
) -> None:
    report = Report("loss", "output/loss", (), weight, "loss", None)
    assert score_text(report, np.float32(value)) == text


def test_outputs_are_numbered_through_all_blobs_element_by_element() -> None:
    stream = io.StringIO()
    reports = [
        Report("a", "output/a", (2,), 0, "a", None),
        Report("b", "output/b", (1, 2), 2, "b", None),
    ]
    values = {"output/a": np.array([1, 2.5]), "output/b": np.array([[3, 4]])}
    CaffeLog(stream).outputs("solver.cpp:397", "Test", reports, values)
    assert [LOG_LINE.sub("", line) for line in stream.getvalue().splitlines()] == [
        "    Test net output #0: a = 1",
        "    Test net output #1: a = 2.5",
        "    Test net output #2: b = 3 (* 2 = 6 loss)",
        "    Test net output #3: b = 4 (* 2 = 8 loss)",
    ]


def test_a_warning_is_a_line_of_level_w_for_each_of_its_lines() -> None:
    stream = io.StringIO()
    span = Span("net.prototxt", 3, 5, 2, "  a: b")
    CaffeLog(stream).diagnostic(Diagnostic("odd-thing", "odd", span, severity="warning"))
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("W") and LOG_LINE.match(line) for line in lines)
    assert LOG_LINE.sub("", lines[0]) == "net.prototxt:3:5: warning: odd [odd-thing]"
    assert len(lines) == 3


def test_warnings_of_the_data_are_told_once(joined: Path) -> None:
    path = joined / "joined.prototxt"
    path.write_text(path.read_text().replace("backend: LMDB", "backend: LEVELDB"))
    ended = run(*TRAIN)
    warned = [line for line in ended.err.splitlines() if "[backend-mismatch]" in line]
    assert ended.code == 0
    assert len(warned) == 2
    assert len({line.split("] ")[1] for line in warned}) == 2
    assert all(line.startswith("W") for line in warned)


def test_a_log_file_gets_every_line_and_is_appended_to(joined: Path) -> None:
    first = run(*TRAIN, "--log", "run.log").err
    second = run(*TRAIN, "--log", "run.log", "--max-iter", 2).err
    assert (joined / "run.log").read_text() == first + second


def test_a_log_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdnetError, match=r"cannot write the log .*\[cannot-write\]"):
        CaffeLog(path=str(tmp_path / "none" / "run.log"))


# --- terminals


def on_terminal(folder: Path, *arguments: str) -> Ended:
    """Run kdnet with stderr on a pseudo terminal of 100 columns."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo terminals")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, "-m", "kdnet", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        chunks = []
        # Linux ends the terminal with EIO, others with an empty read.
        while chunk := _read(ours):
            chunks.append(chunk)
        out = process.stdout.read() if process.stdout else ""
    os.close(ours)
    return Ended(process.returncode, out, b"".join(chunks).decode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_a_terminal_shows_a_bar_below_whole_log_lines(joined: Path) -> None:
    solver = joined / "joined_solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 6", "max_iter: 200"))
    ended = on_terminal(joined, *TRAIN)
    assert ended.code == 0, ended.err
    assert "\x1b[" in ended.err
    plain = ESCAPE.sub("", ended.err).replace("\r", "\n")
    lines = [line.rstrip() for line in plain.split("\n") if line.strip()]
    bars = [line for line in lines if "━" in line]
    assert any(re.search(r"━+ +\d+/200 .* loss \d", line) for line in bars)
    log = [line for line in lines if line not in bars]
    assert all(LOG_LINE.match(line) for line in log), [x for x in log if not LOG_LINE.match(x)]
    train, _ = parsed(log)
    assert [row["iteration"] for row in train] == list(range(0, 200, 2))


def test_a_pipe_shows_no_bar_and_no_colour(joined: Path) -> None:
    ended = process(joined, *TRAIN)
    assert ended.code == 0
    assert "\x1b" not in ended.err
    assert "━" not in ended.err
    assert ended.out == ""
