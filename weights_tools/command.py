"""The commands of ``kdnet weights``, which are those of ``python -m weights_tools``."""

from __future__ import annotations

import argparse
import sys

from kdnet.net.rename import make_mapping, parse_pair, parse_substitution
from weights_tools.mapping import read_map_file
from weights_tools.rename import rename_file
from weights_tools.show import as_json, as_table, file_facts

NAME = "weights"
HELP = "show weight files and rename their layers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options to ``parser``."""
    commands = parser.add_subparsers(dest="weights_command", metavar="COMMAND", required=True)
    _add_show(commands.add_parser("show", help="list layers, blobs and their statistics"))
    _add_rename(commands.add_parser("rename", help="write a file with its layers renamed"))


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.description = "List every blob of a weight file with its shape and statistics."
    parser.add_argument("file", metavar="FILE", help="a .caffemodel, .bin, .h5 or .npz file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(weights_run=_show)


def _add_rename(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a weight file with its layers renamed. A pair settles its layer; the other layers "
        "pass every --regex in order, and then the --template."
    )
    parser.add_argument("file", metavar="FILE", help="the weight file")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write")
    parser.add_argument(
        "--map", metavar="OLD=NEW", action="append", default=[], help="rename one layer"
    )
    parser.add_argument(
        "--map-file",
        metavar="FILE",
        action="append",
        default=[],
        help='pairs in a file: CSV lines, lines of old: "new", or a JSON object',
    )
    parser.add_argument(
        "--regex",
        metavar="s/A/B/",
        action="append",
        default=[],
        help="substitute in every name; flags g (every match) and i (any case)",
    )
    parser.add_argument(
        "--template", metavar="T", default="", help="every name, e.g. teacher/{name}"
    )
    parser.set_defaults(weights_run=_rename)


def run(args: argparse.Namespace) -> int:
    """Run the command that was parsed; its result goes to stdout.

    Raises:
        KdnetError: The files, the mapping or the options are wrong.
    """
    args.weights_run(args)
    return 0


def _show(args: argparse.Namespace) -> None:
    facts = file_facts(args.file)
    sys.stdout.write((as_json(facts) if args.json else as_table(facts)) + "\n")


def _rename(args: argparse.Namespace) -> None:
    pairs = [parse_pair(text) for text in args.map]
    for path in args.map_file:
        pairs += read_map_file(path)
    substitutions = [parse_substitution(text) for text in args.regex]
    mapping = make_mapping(pairs, substitutions, args.template)
    for old, new in rename_file(args.file, args.output, mapping):
        sys.stdout.write(f"mapped {old} to {new}\n")
