"""``cast``: the same layers with 16-bit or 32-bit floats."""

from __future__ import annotations

import argparse

from weights_tools.commands._arguments import add_output, output, say, say_notes
from weights_tools.converting import CASTS, cast

HELP = "write a file with 16-bit or 32-bit floats"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Write a weight file with all its numbers as 16-bit or 32-bit floats. A .caffemodel of "
        "16-bit floats is read by kdnet, OpenCV and NVIDIA's Caffe, not by Caffe itself."
    )
    parser.add_argument("type", choices=CASTS, help="the type of the numbers")
    parser.add_argument("file", metavar="FILE", help="the weight file, of any format")
    add_output(parser)
    parser.add_argument(
        "--allow-overflow", action="store_true", help="let values that are too large be infinite"
    )


def run(args: argparse.Namespace) -> int:
    """Cast; what it did to the numbers goes to stdout."""
    with output(args, "casting") as target:
        account = cast(args.file, target, args.type, allow_overflow=args.allow_overflow)
    line = f"{args.output}: {account.cast} of {account.blobs} blobs cast to {args.type}"
    if account.largest_error:
        line += f", largest error {account.largest_error:.3g}"
    if account.overflows:
        line += f", {account.overflows} values became infinite"
    say(line)
    say_notes(account.notes)
    return 0
