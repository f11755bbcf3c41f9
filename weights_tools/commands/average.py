"""``average``: the mean of several files' weights."""

from __future__ import annotations

import argparse

from kdnet.errors import UsageError, fail
from weights_tools.averaging import average
from weights_tools.commands._arguments import add_output, output, say, say_notes

HELP = "write the mean of several files' weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Write the mean of the weights of files that have the same layers, such as snapshots of "
        "one training."
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="the weight files")
    add_output(parser)
    parser.add_argument(
        "--shares", metavar="S,S", default="", help="how much each file counts, e.g. 3,1"
    )


def shares(text: str) -> tuple[float, ...]:
    """``3,1`` as numbers.

    Raises:
        UsageError: ``bad-shares``.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        fail(UsageError, "bad-shares", f'"{text}" is not a list of numbers such as 3,1')


def run(args: argparse.Namespace) -> int:
    """Average; a line on what was written goes to stdout."""
    with output(args, "averaging") as target:
        notes = average(args.files, target, shares(args.shares))
    say(f"{args.output}: the mean of {len(args.files)} files")
    say_notes(notes)
    return 0
