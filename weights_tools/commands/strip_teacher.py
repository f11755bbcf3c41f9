"""``strip-teacher``: the student's layers of a joined net's weight file."""

from __future__ import annotations

import argparse

from weights_tools.commands._arguments import (
    add_output,
    add_state,
    net_choice,
    output,
    say,
    say_notes,
)
from weights_tools.selecting import strip_teacher

HELP = "write the student's layers of a joined net's file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Write only the layers that the students of a joined net need, frozen ones too; teachers "
        "and what losses train for themselves are left out."
    )
    parser.add_argument("file", metavar="FILE", help="the weight file")
    parser.add_argument("net", metavar="NET", help="the joined net, or a join's description")
    add_output(parser)
    parser.add_argument(
        "--head",
        metavar="BLOB",
        action="append",
        default=[],
        help="the blobs whose layers to keep (those of every student)",
    )
    add_state(parser)


def run(args: argparse.Namespace) -> int:
    """Strip; what was kept and dropped goes to stdout."""
    choice = net_choice(args.net, args)
    with output(args, "writing") as target:
        found = strip_teacher(args.file, target, choice, args.head)
    for word, names in (("kept", found.kept), ("dropped", found.dropped)):
        for name in names:
            say(f"{word} {name}")
    say_notes(found.notes)
    return 0
