"""``diff``: what differs between two weight files."""

from __future__ import annotations

import argparse

from weights_tools.commands._arguments import say
from weights_tools.difference import file_difference

HELP = "compare two weight files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Compare two weight files of any formats by layer name. Blobs that are not identical get "
        'a row: "equal" has the same values but other bits or types. Leaves with 1 where anything '
        "differs."
    )
    parser.add_argument("a", metavar="A", help="a weight file")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument(
        "--tolerance", type=tolerance, default=0.0, metavar="T", help="let values be so far apart"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def tolerance(text: str) -> float:
    """A number from 0 on."""
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or above")
    return value


def run(args: argparse.Namespace) -> int:
    """Print what differs; 1 if anything does."""
    found = file_difference(args.a, args.b, tolerance=args.tolerance)
    say(found.as_json() if args.json else found.text())
    return 0 if found.same else 1
