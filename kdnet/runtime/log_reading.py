"""Reads training logs, Caffe's and kdnet's: what each iteration showed, as rows of two tables.

A log may be cut off anywhere, begin in the middle, or hold a run and its restarts. The rows that a
restart ran again, from the iteration it began with, are the restart's.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from kdnet.errors import DataError, fail

_STAMP = re.compile(
    r"[IWEF](\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))? +(\d+) [^ ]+:\d+\] "
)
_NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf)"
_ITERATION = re.compile(r"Iteration (\d{1,15})\b")
_TEST_NET = re.compile(r"Testing net \(#(\d{1,9})\)")
_OUTPUT = re.compile(rf"(Train|Test) net output #\d+: (\S+) = ({_NUMBER})")
_RATE = re.compile(rf"Iteration \d+, lr = ({_NUMBER})")
_SOLVING = "] Solving "
_TOLD = ("Iteration ", " net output #", _SOLVING)
_LONGEST_LINE_BYTES = 1 << 16
_MOST_COLUMNS = 1 << 12

FIXED = ("NumIters", "Seconds", "LearningRate")


@dataclass
class Row:
    """What one iteration showed; ``rate`` is NaN until the log says it."""

    iteration: int
    seconds: float
    rate: float
    outputs: dict[str, float] = field(default_factory=dict)


@dataclass
class Log:
    """The rows of a log, in the order of their iterations."""

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    replaced: int = 0
    restarts: int = 0


_Stamped = tuple[str, re.Match[str]]


class _Line(NamedTuple):
    text: str
    at: datetime


def read_log(path: Path) -> Log:
    """Read a log; lines that are no log lines are passed over.

    Raises:
        DataError: unreadable-log; mixed-log; no-log-lines where it holds no output of a run.
    """
    try:
        modified = datetime.fromtimestamp(path.stat().st_mtime)  # noqa: DTZ006, RUF100  # glog prints local time
        with path.open("rb") as file:
            lines = list(_stamped(file))
    except OSError as error:
        fail(DataError, "unreadable-log", f'cannot read "{path}": {error.strerror}')
    _check_one_run(path, lines)
    found = _parsed(_dated(lines, modified.year))
    if not (found.train or found.test):
        hint = ("a log is what kdnet train or caffe train prints to stderr",)
        text = f'"{path}" has no line with the output of a train or a test net'
        fail(DataError, "no-log-lines", text, help=hint)
    return found


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells; a number that the log does not have is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row.outputs))
    cells = []
    for row in rows:
        line = [repr(float(row.iteration)), repr(row.seconds), repr(row.rate)]
        line += [repr(row.outputs[name]) if name in row.outputs else "" for name in columns]
        cells.append(line)
    return [*FIXED, *columns], cells


def _stamped(file: Iterable[bytes]) -> Iterator[_Stamped]:
    """The first line of the log and all that tell something.

    What follows the last line feed may end within a number.
    """
    first = True
    for line in file:
        if not line.endswith(b"\n") or len(line) > _LONGEST_LINE_BYTES:
            continue
        text = line.decode(errors="replace")
        found = _STAMP.match(text)
        if found and (first or any(words in text for words in _TOLD)):
            first = False
            yield text, found


def _check_one_run(path: Path, lines: Sequence[_Stamped]) -> None:
    """Refuse a log whose lines come from two threads by turns: no line says which run it is of.

    A restart is another thread too, but says that it begins.
    """
    threads = [found[8] for _, found in lines]
    turns = sum(after != before for before, after in pairwise(threads))
    begun = sum(_SOLVING in text for text, _ in lines)
    if turns > begun + 1:
        text = f'"{path}" holds lines of several runs that trained at the same time'
        thread = threads[-1]
        hint = (f"take the lines of one thread: grep ' {thread} ' {path} > {thread}.log",)
        fail(DataError, "mixed-log", text, help=hint)


def _dated(lines: Sequence[_Stamped], last_year: int) -> Iterator[_Line]:
    """Lines with their times; stamps without a year go by the year in which the log ends."""
    months = [int(found[2]) for _, found in lines]
    turns = sum(after < before for before, after in pairwise(months))
    year, before = last_year - turns, 0
    for text, found in lines:
        month, day, hour, minute, second = (int(found[i]) for i in range(2, 7))
        year += int(month < before)
        before = month
        micros = int((found[7] or "0").ljust(6, "0"))
        try:
            at = datetime(int(found[1] or year), 1, 1, hour, minute, second, micros)  # noqa: DTZ001, RUF100  # as glog prints it
            yield _Line(text, at + timedelta(days=_days(int(found[1] or year), month, day)))
        except ValueError:
            continue


def _days(year: int, month: int, day: int) -> int:
    """Days since the year's first; of a day that the year lacks, as if it had it."""
    return (datetime(year, month, 1) - datetime(year, 1, 1)).days + day - 1  # noqa: DTZ001, RUF100  # local, as above


def _parsed(lines: Iterator[_Line]) -> Log:
    log, reader = Log(), _Reader()
    for line in lines:
        reader.read(line, log)
    for rows in (log.train, log.test):
        _fill_rates(rows, reader.rates)
        rows.sort(key=lambda row: row.iteration)
    return log


class _Reader:
    """What of earlier lines decides the meaning of the next."""

    def __init__(self) -> None:
        self.rates: dict[int, float] = {}
        self._start: datetime | None = None
        self._iteration: int | None = None
        self._fresh = False
        self._net = 0
        self._row: dict[str, Row] = {}

    def read(self, line: _Line, log: Log) -> None:
        """Take in one line."""
        self._start = self._start or line.at
        if _SOLVING in line.text:
            # Before the first run there is only the making of nets.
            if self._iteration is None:
                self._start = line.at
            self._fresh = self._iteration is not None
            return
        found = _ITERATION.search(line.text)
        if found:
            self._begin(int(found[1]), log)
            net = _TEST_NET.search(line.text)
            self._net = int(net[1]) if net else 0
            rate = _RATE.search(line.text)
            if rate and self._iteration is not None:
                self.rates[self._iteration] = float(rate[1])
        if self._iteration is not None:
            self._output(line, log)

    def _begin(self, iteration: int, log: Log) -> None:
        back = self._iteration is not None and iteration < self._iteration
        if self._fresh or back:
            log.restarts += 1
            for rows in (log.train, log.test):
                kept = [row for row in rows if row.iteration < iteration]
                log.replaced += len(rows) - len(kept)
                rows[:] = kept
            self.rates = {i: rate for i, rate in self.rates.items() if i < iteration}
            self._fresh = False
            self._row = {}
        self._iteration = iteration

    def _output(self, line: _Line, log: Log) -> None:
        found = _OUTPUT.search(line.text)
        if not found or self._iteration is None or self._start is None:
            return
        kind, name, value = found.groups()
        row = self._row.get(kind)
        if row is None or row.iteration != self._iteration:
            seconds = (line.at - self._start).total_seconds()
            row = self._row[kind] = Row(self._iteration, seconds, float("nan"))
            (log.train if kind == "Train" else log.test).append(row)
        if len(row.outputs) < _MOST_COLUMNS:
            row.outputs[_column(row, name, self._net if kind == "Test" else 0)] = float(value)


def _column(row: Row, name: str, net: int) -> str:
    """A name of its own for each output: further test nets and elements are numbered."""
    column = f"{name} (#{net})" if net else name
    index = 0
    free = column
    while free in row.outputs:
        index += 1
        free = f"{column}[{index}]"
    return free


def _fill_rates(rows: list[Row], rates: dict[int, float]) -> None:
    """The rate of each row's own iteration, else the last one before it, else the next."""
    known = sorted(rates)
    for row in rows:
        if known:
            row.rate = rates[known[max(0, bisect_right(known, row.iteration) - 1)]]
