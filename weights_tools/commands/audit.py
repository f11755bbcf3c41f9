"""``audit``: what would load where."""

from __future__ import annotations

import argparse

from kdnet.errors import WeightsError
from weights_tools.audit import audit_files
from weights_tools.commands._arguments import add_state, net_choice, say

HELP = "say what a net would load from files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = (
        "Say for every layer of a net which file fills it, as loading would; for layers that none "
        "fills, layers of the files that may be meant. Leaves with 1 where training would stop."
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="weight files, in order")
    parser.add_argument("net", metavar="NET", help="the net, or a join's description")
    parser.add_argument(
        "--allow-unloaded", action="store_true", help="let frozen layers stay without weights"
    )
    add_state(parser)


def run(args: argparse.Namespace) -> int:
    """Print the account; what training would stop at is raised.

    Raises:
        WeightsError: as loading.
    """
    choice = net_choice(args.net, args)
    found = audit_files(args.files, choice, allow_unloaded=args.allow_unloaded)
    say(found.text())
    if found.faults:
        raise WeightsError(*found.faults)
    return 0
