"""``show``: every blob with its shape, type, statistics and hash."""

from __future__ import annotations

import argparse

from weights_tools.commands._arguments import add_flatten, flattened, say
from weights_tools.show import as_json, as_table, file_facts

HELP = "list layers, blobs and their statistics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "List every blob of a weight file with its shape, statistics and a hash of its values, "
        "which is the same for the same values in every format."
    )
    parser.add_argument("file", metavar="FILE", help="a weight file of any format")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flatten(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table, or the JSON."""
    facts = file_facts(args.file, flattened(args))
    say(as_json(facts) if args.json else as_table(facts))
    return 0
