"""``merge``: several weight files in one."""

from __future__ import annotations

import argparse

from kdnet.errors import UsageError, fail
from weights_tools.commands._arguments import add_output, output, say, say_mapped, say_notes
from weights_tools.merging import FIRST, LAST, merge

HELP = "write the layers of several files into one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Write the layers of several weight files into one. A layer that two files have with "
        "other values is an error, unless a --prefix keeps them apart or --prefer takes one."
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="the weight files, in order")
    add_output(parser)
    parser.add_argument(
        "--prefix",
        metavar="NAME=PREFIX",
        action="append",
        default=[],
        help="put PREFIX before the layers of a file, named by its path or without folder and "
        "ending",
    )
    parser.add_argument("--prefer", choices=(FIRST, LAST), default="", help="settle conflicts")


def run(args: argparse.Namespace) -> int:
    """Merge; renames and settled conflicts go to stdout."""
    prefixes = {}
    for text in args.prefix:
        name, _, prefix = text.partition("=")
        if not name or not prefix:
            fail(UsageError, "bad-prefix", f'"{text}" is not NAME=PREFIX')
        prefixes[name] = prefix
    with output(args, "merging") as target:
        merged = merge(args.files, target, prefixes=prefixes, prefer=args.prefer)
    say_mapped(merged.made)
    for layer, kept, left_out in merged.settled:
        say(f"kept {layer} of {kept}, not that of {left_out}")
    say_notes(merged.notes)
    return 0
