"""``convert``: the same numbers in another format."""

from __future__ import annotations

import argparse

from weights_tools.commands._arguments import (
    add_flatten,
    add_output,
    flattened,
    output,
    say,
    say_notes,
)
from weights_tools.converting import convert

HELP = "write a file in another format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Write a weight file in another format, by --to or OUT's ending, a layer at a time. What "
        "the format cannot carry is named."
    )
    parser.add_argument("file", metavar="FILE", help="the weight file, of any format")
    add_output(parser)
    add_flatten(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; a line on what was written goes to stdout."""
    with output(args, "converting") as target:
        account = convert(args.file, target, flattened=flattened(args))
    say(f"{args.output}: {account.layers} layers, {account.blobs} blobs")
    if account.widened:
        say(f"16-bit floats became 32-bit ones in {account.widened} blobs")
    say_notes(account.notes)
    return 0
