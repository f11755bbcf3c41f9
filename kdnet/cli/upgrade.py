"""Write an old net or solver in today's format.

What Caffe's own tools upgrade is upgraded: the first and the second format of layers (V0, V1),
transformation fields of data layers, input fields of a net, BatchNorm's three params,
solver_type, and a snapshot_prefix that is a folder. IN may be text or binary, such as a
.caffemodel, whose weights are kept as they are; its content decides, not its name.

  upgrade_net_proto_text IN OUT       is  kdnet upgrade net IN OUT
  upgrade_net_proto_binary IN OUT     is  kdnet upgrade net IN OUT
  upgrade_solver_proto_text IN OUT    is  kdnet upgrade solver IN OUT

IN and OUT may be one file. Comments stay only in a text that needed no upgrade.
"""

from __future__ import annotations

import argparse

NAME = "upgrade"
HELP = "write an old net or solver in today's format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=("net", "solver"), help="what IN holds")
    parser.add_argument("source", metavar="IN", help="the old file")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to",
        choices=("text", "binary"),
        help="the form of OUT (as IN); a text gets no weights of a binary net",
    )


def run(options: argparse.Namespace) -> int:
    """Upgrade; what was done goes to stdout."""
    from kdnet.weights.upgrading import upgrade_net_file, upgrade_solver_file

    upgrade = upgrade_net_file if options.kind == "net" else upgrade_solver_file
    found = upgrade(options.source, options.target, options.to)
    for text in found.done:
        print(f"upgraded {text}")
    if not found.done:
        print(f"nothing to upgrade: {options.source} is in today's format")
    for text in found.lost:
        print(f"left out {text}")
    print(f"{options.target}: {options.kind}, {found.form}")
    return 0
