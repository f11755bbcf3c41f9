"""Look for what is legal but likely wrong.

The net is looked at as `kdnet train` would build it, and a few batches are run through it. What is
found are warnings; faults that training would stop at are errors.
"""

from __future__ import annotations

import argparse
import json
import sys

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_synthetic,
    add_weights,
    count,
    seed,
    training,
)
from kdnet.cli._python import add_python, python_layers
from kdnet.errors import Diagnostic, render_all

NAME = "check"
HELP = "warn of likely mistakes in a net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET|SOLVER", help="a net or a solver prototxt")
    parser.add_argument("--solver", metavar="S", help="the solver, when NET is a net")
    add_weights(parser)
    parser.add_argument(
        "--batches", type=count, default=4, metavar="N", help="batches to look at (4); 0 for none"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="of fillers, batches and noise")
    parser.add_argument("--strict", action="store_true", help="leave with 1 if anything is found")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_device(parser)
    add_state(parser)
    add_synthetic(parser)
    add_python(parser)


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    from kdnet.runtime import CaffeLog
    from kdnet.runtime.checks import CheckOptions, check_training

    wanted = CheckOptions(training(options, device=options.device), options.batches)
    with python_layers(options):
        findings = check_training(wanted, CaffeLog(sys.stderr))
    if options.json:
        print(json.dumps([_as_object(found) for found in findings.found], indent=2))
    elif findings.found:
        print(render_all(findings.found))
    looked = f"looked at {findings.items} items" if findings.items else "looked at no data"
    if findings.unseen:
        looked += f": {findings.unseen}"
    total = len(findings.found)
    counted = "nothing" if not total else f"{total} warning" + ("s" if total > 1 else "")
    print(f"{options.path}: found {counted}; {looked}", file=sys.stderr)
    return int(bool(options.strict and findings.found))


def _as_object(found: Diagnostic) -> dict[str, object]:
    place = str(found.span) if found.span else None
    return {
        "code": found.code,
        "at": place,
        "message": found.message,
        "help": list(found.help),
    }
