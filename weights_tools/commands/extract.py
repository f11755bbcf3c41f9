"""``extract``: some layers of a weight file."""

from __future__ import annotations

import argparse

from weights_tools.commands._arguments import add_output, output, say, say_notes
from weights_tools.selecting import extract

HELP = "write some layers of a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = "Write the layers of a weight file whose names patterns match."
    parser.add_argument("file", metavar="FILE", help="the weight file")
    add_output(parser)
    parser.add_argument(
        "--layers",
        metavar="GLOB",
        action="append",
        required=True,
        help="layers by a pattern of * ? [abc], such as 'teacher/*'; may be given again",
    )
    parser.add_argument(
        "--allow-unmatched", action="store_true", help="let a pattern match no layer"
    )


def run(args: argparse.Namespace) -> int:
    """Extract; what was kept goes to stdout."""
    with output(args, "extracting") as target:
        found = extract(args.file, target, args.layers, allow_unmatched=args.allow_unmatched)
    for name in found.kept:
        say(f"kept {name}")
    say_notes(found.notes)
    return 0
