"""``rename``: write a file with its layers renamed, by rules or to fit a net."""

from __future__ import annotations

import argparse
from dataclasses import replace

from kdnet.net.rename import Mapping, make_mapping, parse_pair, parse_substitution
from weights_tools.commands._arguments import (
    add_output,
    add_state,
    net_choice,
    output,
    say,
    say_mapped,
    say_notes,
)
from weights_tools.mapping import read_map_file
from weights_tools.renaming import plan_renames
from weights_tools.writing import layer_names, write_selected

HELP = "write a file with its layers renamed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Write a weight file with its layers renamed. A pair settles its layer; the other layers "
        "pass every --regex in order, and then the --template. --auto finds the pairs by itself, "
        "from the layers of a net. A .caffemodel stays one byte for byte, but for the names."
    )
    parser.add_argument("file", metavar="FILE", help="the weight file")
    add_output(parser)
    _add_rules(parser)
    parser.add_argument(
        "--auto", metavar="NET", help="match layers with those of a net and show the matches"
    )
    parser.add_argument("--yes", action="store_true", help="take what --auto finds unseen")
    parser.add_argument(
        "--for", dest="net", metavar="NET", help="check that what is renamed fits a net's layers"
    )
    add_state(parser)
    _add_allowances(parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
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


def _add_allowances(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-unmatched", action="store_true", help="let a rule match no layer of the file"
    )
    parser.add_argument(
        "--allow-collision",
        action="store_true",
        help="of several layers that get one name keep the one that --map names, else the first",
    )
    parser.add_argument(
        "--allow-shape-change",
        action="store_true",
        help="rename a layer to one of the net that takes other shapes",
    )


def run(args: argparse.Namespace) -> int:
    """Rename; every rename goes to stdout."""
    rules = _rules(args)
    names = layer_names(args.file)
    if args.auto:
        from weights_tools.fitting import confirm, propose

        proposal = propose(args.file, net_choice(args.auto, args), rules)
        say(proposal.text())
        confirm(yes=args.yes)
        rules = proposal.rules
    plan = plan_renames(names, rules, allow_collision=args.allow_collision)
    if args.net and not args.allow_shape_change:
        from weights_tools.fitting import check_fit

        check_fit(args.file, plan.names, net_choice(args.net, args))
    with output(args, "renaming") as target:
        notes = write_selected(args.file, plan.names, target)
    say_mapped(plan.made)
    for name in plan.left_out:
        say(f"left out {name}: another layer has its new name")
    say_notes(notes)
    return 0


def _rules(args: argparse.Namespace) -> Mapping:
    """The rules that the flags give; none at all is a fault, but not beside ``--auto``."""
    pairs = [parse_pair(text) for text in args.map]
    for path in args.map_file:
        pairs += read_map_file(path)
    substitutions = [parse_substitution(text) for text in args.regex]
    if args.auto and not (pairs or substitutions or args.template):
        return Mapping()
    rules = make_mapping(pairs, substitutions, args.template)
    return replace(rules, strict=not args.allow_unmatched)
