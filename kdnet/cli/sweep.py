"""Train a student for every combination of values, side by side in one graph where memory allows.

NAME is lambda (the weight of the losses with a teacher; the student's others get 1 - lambda),
LAYER.field, a field of the solver, or a field of the losses with a teacher, such as temperature.
LIST is a,b,c or start:stop:step, stop included. All students see the batches of the first seed;
a seed is of first weights and noise. Finished settings are not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_weights,
    count,
    positive,
    seed,
    training,
)
from kdnet.cli._progress import bar

if TYPE_CHECKING:
    from kdnet.runtime.sweep import SweepOptions, SweepOutcome
    from kdnet.runtime.sweep.results import Summary

NAME = "sweep"
HELP = "train a grid of settings, as students side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET|SOLVER", help="a net or a solver prototxt")
    parser.add_argument(
        "--set",
        dest="variables",
        action="append",
        default=[],
        metavar="NAME=LIST",
        help="a variable and its values",
    )
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="seeds of each combination (1)"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="the first seed, and the data's")
    parser.add_argument("--solver", metavar="S", help="the solver, when NET is a net")
    add_weights(parser)
    add_device(parser)
    parser.add_argument("--max-iter", type=count, metavar="N", help="iterations of each")
    parser.add_argument(
        "--side-by-side",
        type=_side_by_side,
        metavar="N|auto",
        help="students in one graph; auto goes by the free memory",
    )
    parser.add_argument("--by", metavar="BLOB", help="the output that tells the best (a metric)")
    parser.add_argument("--out", metavar="DIR", help="where results go (runs/sweep-<net>)")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results there")
    parser.add_argument(
        "--snapshots", action="store_true", help="write every student's weights at the end"
    )
    parser.add_argument(
        "--nets", action="store_true", help="write every setting's own net and solver"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--log", metavar="FILE", help="append the log lines to a file too")
    add_state(parser)


def _side_by_side(text: str) -> int | None:
    return None if text == "auto" else positive(text)


def run(options: argparse.Namespace) -> int:
    """Run the sweep; the summary goes to stdout, the log to stderr."""
    from kdnet.runtime import CaffeLog, StopRequest
    from kdnet.runtime.sweep import run_sweep

    with (
        closing(CaffeLog(sys.stderr, options.log)) as log,
        StopRequest() as stop,
        bar(log) as show,
    ):
        outcome = run_sweep(_wanted(options, show), log, stop)
    print(_as_json(outcome) if options.json else "\n".join(_table(outcome)))
    return 0


def _wanted(options: argparse.Namespace, show: Callable[[int, int], None]) -> SweepOptions:
    from kdnet.runtime.sweep import SweepOptions

    return SweepOptions(
        train=training(options, device=options.device, max_iter=options.max_iter, out=options.out),
        variables=tuple(options.variables),
        seeds=options.seeds,
        side_by_side=options.side_by_side,
        by=options.by,
        fresh=options.fresh,
        snapshots=options.snapshots,
        nets=options.nets,
        on_step=show,
    )


def _table(outcome: SweepOutcome) -> list[str]:
    """A line a combination: its values, its scores, and a star at the best."""
    names = dict.fromkeys(name for s in outcome.summaries for name in s.mean)
    # Elements of a vector, as the accuracy of each class, are in the files.
    reports = [name for name in names if not name.endswith("]")]
    lines = [[*outcome.variables, "n", *reports, ""]]
    for summary in outcome.summaries:
        cells = [*summary.values, str(summary.seeds)]
        cells += [_score(summary, name) for name in reports]
        lines.append([*cells, _remark(summary, best=summary is outcome.best)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _remark(summary: Summary, *, best: bool) -> str:
    found = ["*"] if best else []
    if summary.diverged:
        found.append(f"{summary.diverged} diverged")
    return ", ".join(found)


def _score(summary: Summary, name: str) -> str:
    mean, spread = summary.mean.get(name, math.nan), summary.spread.get(name, math.nan)
    return f"{mean:.5g} ± {spread:.2g}" if math.isfinite(spread) else f"{mean:.5g}"


def _as_json(outcome: SweepOutcome) -> str:
    def entry(summary: Summary) -> dict[str, object]:
        return {
            "values": dict(zip(outcome.variables, summary.values, strict=True)),
            "n": summary.seeds,
            "diverged": summary.diverged,
            "mean": {name: _finite(value) for name, value in summary.mean.items()},
            "std": {name: _finite(value) for name, value in summary.spread.items()},
        }

    found = {
        "net": outcome.net,
        "variables": outcome.variables,
        "seeds": outcome.seeds,
        "by": outcome.report,
        "highest": outcome.highest,
        "best": entry(outcome.best) if outcome.best else None,
        "settings": [entry(summary) for summary in outcome.summaries],
        "folder": outcome.folder,
        "students_per_graph": outcome.students_per_graph,
        "seconds": round(outcome.seconds, 3),
    }
    return json.dumps(found, indent=2)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
