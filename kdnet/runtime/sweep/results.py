"""The results of a sweep as a table in a file, and what they amount to."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdnet.errors import Span, UsageError, fail
from kdnet.runtime.sweep.grid import Setting
from kdnet.weights import atomic_write

SEED, ITERATION, KEY = "seed", "iteration", "key"
HINT = "choose another folder with --out, or begin anew with --fresh"


@dataclass(frozen=True)
class Row:
    """One student's scores at one test."""

    values: tuple[str, ...]
    seed: int
    iteration: int
    scores: Mapping[str, float]
    key: str


@dataclass
class Results:
    """All rows of a sweep by the key of their setting."""

    variables: tuple[str, ...]
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, setting: Setting, iteration: int, scores: Mapping[str, float]) -> None:
        """Append a test of a student."""
        row = Row(setting.values, setting.seed, iteration, dict(scores), setting.key)
        self.rows.setdefault(setting.key, []).append(row)

    def drop(self, settings: Iterable[Setting]) -> None:
        """Forget these settings, also as other nets or solvers left them."""
        gone = {(setting.values, setting.seed) for setting in settings}
        self.rows = {
            key: rows
            for key, rows in self.rows.items()
            if (rows[0].values, rows[0].seed) not in gone
        }

    def has(self, setting: Setting) -> bool:
        """Whether the setting was trained to its end."""
        rows = self.rows.get(setting.key, [])
        return any(row.iteration == setting.solver.message.max_iter for row in rows)

    def final(self, setting: Setting) -> Row:
        """The setting's last row."""
        return max(self.rows[setting.key], key=lambda row: row.iteration)

    @property
    def reports(self) -> tuple[str, ...]:
        """Every score's name, in the order of their first appearance."""
        names = (name for rows in self.rows.values() for row in rows for name in row.scores)
        return tuple(dict.fromkeys(names))


def save(results: Results, path: str) -> None:
    """Write the table.

    Raises:
        WeightsError: cannot-write.
    """
    reports = results.reports
    header = [*results.variables, SEED, ITERATION, *(_column(results, r) for r in reports), KEY]
    lines = [
        [
            *row.values,
            row.seed,
            row.iteration,
            *(number(row.scores[r]) if r in row.scores else "" for r in reports),
            row.key,
        ]
        for rows in results.rows.values()
        for row in rows
    ]
    write_table(path, [header, *lines])


def _column(results: Results, report: str) -> str:
    taken = report in (*results.variables, SEED, ITERATION, KEY)
    return f"output/{report}" if taken else report


def number(value: float) -> str:
    """Nine digits, enough to give back the float32."""
    return f"{value:.9g}"


def write_table(path: str, lines: Iterable[Sequence[object]]) -> None:
    """Write lines of comma-separated values.

    Raises:
        WeightsError: cannot-write.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def load(path: str, variables: tuple[str, ...]) -> Results:
    """Read a table of an earlier sweep of the same variables; an empty one if there is none.

    Raises:
        UsageError: other-sweep, bad-results.
    """
    results = Results(variables)
    if not Path(path).exists():
        return results
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(UsageError, "bad-results", f'cannot read "{path}": {error}', help=(HINT,))
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    count = len(variables)
    if tuple(header[: count + 2]) != (*variables, SEED, ITERATION) or header[-1] != KEY:
        text = f'"{path}" holds no sweep of {", ".join(variables) or "seeds alone"}'
        fail(UsageError, "other-sweep", text, help=(HINT,))
    for cells in reader:
        try:
            row = _row(cells, header, count)
        except ValueError as error:
            span = Span(path, reader.line_num, 1)
            fail(UsageError, "bad-results", f"not a row: {error}", span=span, help=(HINT,))
        results.rows.setdefault(row.key, []).append(row)
    return results


def _row(cells: Sequence[str], header: Sequence[str], count: int) -> Row:
    named = list(zip(header, cells, strict=True))
    scores = {
        name.removeprefix("output/") if name.startswith("output/") else name: float(cell)
        for name, cell in named[count + 2 : -1]
        if cell
    }
    return Row(tuple(cells[:count]), int(cells[count]), int(cells[count + 1]), scores, cells[-1])


@dataclass(frozen=True)
class Summary:
    """One combination of values over its seeds; ``spread`` is the sample standard deviation."""

    values: tuple[str, ...]
    seeds: int
    diverged: int
    mean: Mapping[str, float]
    spread: Mapping[str, float]


def summarise(results: Results, settings: Sequence[Setting]) -> list[Summary]:
    """Mean and spread of the final scores of each combination, over the seeds that converged."""
    grouped: dict[tuple[str, ...], list[Row]] = {}
    for setting in settings:
        grouped.setdefault(setting.values, []).append(results.final(setting))
    found = []
    for values, rows in grouped.items():
        kept = [row for row in rows if all(map(math.isfinite, row.scores.values()))]
        names = dict.fromkeys(name for row in rows for name in row.scores)
        scores = {name: [row.scores[name] for row in kept] for name in names}
        mean = {name: statistics.fmean(s) if s else math.nan for name, s in scores.items()}
        spread = {
            name: statistics.stdev(s) if len(s) > 1 else math.nan for name, s in scores.items()
        }
        found.append(Summary(values, len(kept), len(rows) - len(kept), mean, spread))
    return found


def best_of(summaries: Sequence[Summary], report: str, *, highest: bool) -> Summary | None:
    """The combination with the best mean; None where none converged."""
    finite = [s for s in summaries if math.isfinite(s.mean.get(report, math.nan))]
    sign = 1 if highest else -1
    return max(finite, key=lambda s: sign * s.mean[report], default=None)


def save_summary(variables: Sequence[str], summaries: Sequence[Summary], path: str) -> None:
    """Write a line a combination.

    Raises:
        WeightsError: cannot-write.
    """
    names = list(dict.fromkeys(name for summary in summaries for name in summary.mean))
    header = [*variables, "n", "diverged"]
    for name in names:
        header += [f"{name}_mean", f"{name}_std"]
    lines = [
        [*s.values, s.seeds, s.diverged]
        + [number(part[name]) for name in names for part in (s.mean, s.spread)]
        for s in summaries
    ]
    write_table(path, [header, *lines])
