"""Turn a training log into tables: OUTDIR/LOG.train and OUTDIR/LOG.test.

The log is what `kdnet train` or `caffe train` printed. Each table is a CSV with a row for each
iteration that showed outputs: NumIters, Seconds since the run began, LearningRate, and a column
for each output. Where a run was restarted, its later rows are the restart's. Elements of one
output after the first are called name[1], name[2]; outputs of a second test net name (#1).
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

NAME = "parse-log"
HELP = "turn a training log into CSV tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("log", metavar="LOG", type=Path, help="a training log")
    parser.add_argument("folder", metavar="OUTDIR", type=Path, help="where the tables go")
    parser.add_argument("--verbose", action="store_true", help="name the files written")
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        default=",",
        metavar="C",
        help="between columns (,); \\t for a tab",
    )


def run(options: argparse.Namespace) -> int:
    """Write the tables."""
    from kdnet.runtime.log_reading import read_log, table
    from kdnet.weights import atomic_write

    log = read_log(options.log)
    for kind, rows in (("train", log.train), ("test", log.test)):
        path = options.folder / f"{options.log.name}.{kind}"
        if not rows:
            if options.verbose:
                print(f"not writing {path}: the log shows no {kind} output")
            continue
        headings, cells = table(rows)
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=options.delimiter).writerows([headings, *cells])
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())
        if options.verbose:
            print(f"wrote {path}: {len(rows)} rows")
    if log.restarts:
        told = f"{options.log}: restarted {log.restarts} times, {log.replaced} rows ran again"
        print(told, file=sys.stderr)
    return 0


def _delimiter(text: str) -> str:
    found = "\t" if text == "\\t" else text
    if len(found) != 1 or found in '\r\n"':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return found
