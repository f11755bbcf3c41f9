"""The commands of ``kdnet weights``, which are those of ``python -m weights_tools``."""

from __future__ import annotations

import argparse

from kdnet.commands import CommandParser
from weights_tools.stopping import stoppable

NAME = "weights"
HELP = "show, compare, rename, merge and convert weight files"


def add_arguments(parser: CommandParser) -> None:
    """Add the commands and their options to ``parser``."""
    parser.take_commands("weights_tools.commands", "weights_run")


def run(args: argparse.Namespace) -> int:
    """Run the command that was parsed; its result goes to stdout.

    Returns:
        The exit status: 1 where ``diff`` finds a difference.

    Raises:
        KdnetError: The files, the mapping or the options are wrong.
    """
    with stoppable():
        return int(args.weights_run(args))
