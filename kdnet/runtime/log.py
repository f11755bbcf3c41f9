"""Log lines in exactly Caffe's shape, so that people's parsers keep working."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Report
from kdnet.errors import Diagnostic, KdnetError, fail, render

# The places in Caffe's source that its own lines name; parsers key on some of them.
SOLVING = "solver.cpp:272"
POLICY = "solver.cpp:273"
FINAL_LOSS = "solver.cpp:310"
DONE = "solver.cpp:315"
EARLY = "solver.cpp:301"
TESTING = "solver.cpp:330"
TEST_LOSS = "solver.cpp:391"
TEST_OUTPUT = "solver.cpp:397"
ITERATION = "solver.cpp:218"
TRAIN_OUTPUT = "solver.cpp:237"
RATE_LINE = "sgd_solver.cpp:105"
STEPPED = "sgd_solver.cpp:50"
SNAPSHOT = "solver.cpp:447"
SOLVER_STATE = "sgd_solver.cpp:273"
FINETUNING = "caffe.cpp:155"
OWN = "kdnet:0"


class CaffeLog:
    """Writes glog lines to a stream, and to a file where one is given.

    Args:
        stream: where lines go; stderr by default.
        path: a file that gets every line too, appended to.
        print_line: replaces writing to the stream, so that a progress bar can stay below.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        path: str | None = None,
        print_line: Callable[[str], None] | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        self._file = _opened(path) if path else None
        self.print_line = print_line or self._print

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    def line(self, place: str, text: str, *, level: str = "I") -> None:
        """One line: level, month and day, time, thread, place, text."""
        now = datetime.now()  # noqa: DTZ005, RUF100  # glog prints local time
        stamp = now.strftime("%m%d %H:%M:%S.%f")
        thread = threading.get_native_id() if hasattr(threading, "get_native_id") else os.getpid()
        line = f"{level}{stamp} {thread:5d} {place}] {text}"
        try:
            self.print_line(line)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._hang_up()
        if self._file:
            self._file.write(line + "\n")
            self._file.flush()

    def _hang_up(self) -> None:
        """The terminal is gone, which a run survives: whatever is written to it goes nowhere."""
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._stream.fileno())
        os.close(devnull)

    def diagnostic(self, found: Diagnostic) -> None:
        """A warning with its place, a log line for each of its lines."""
        for text in render(found).splitlines():
            self.line(OWN, text, level="W")

    def outputs(
        self, place: str, net: str, reports: Sequence[Report], values: dict[str, NDArray[Any]]
    ) -> None:
        """``Train net output #0: loss = 2.3 (* 1 = 2.3 loss)``, a line an element."""
        number = 0
        for report in reports:
            for value in np.reshape(values[report.output], -1):
                self.line(place, f"    {net} net output #{number}: {score_text(report, value)}")
                number += 1

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def _opened(path: str) -> TextIO:
    try:
        return Path(path).open("a", encoding="utf-8")
    except OSError as error:
        text = f'cannot write the log "{path}": {error.strerror}'
        fail(KdnetError, "cannot-write", text)


def with_weights(reports: Sequence[Report], scheduled: Mapping[str, float]) -> list[Report]:
    """The reports with the loss weights of the moment."""
    return [
        replace(report, loss_weight=scheduled.get(report.scheduled, report.loss_weight))
        for report in reports
    ]


def score_text(report: Report, value: float) -> str:
    """``loss = 2.3 (* 1 = 2.3 loss)``; no bracket where the weight is 0."""
    text = f"{report.blob} = {value:g}"
    weight = report.loss_weight
    return f"{text} (* {weight:g} = {weight * value:g} loss)" if weight else text
