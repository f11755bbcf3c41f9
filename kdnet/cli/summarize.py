"""Show what a net is made of and what it takes.

A line for each layer: name, type, what multiplies the rate (x) and the decay (Dx) of each weight
blob where that is not 1, bottoms -> tops with loss weights, kernel/stride+pad and outputs/groups,
shapes of the tops, parameters, multiply-accumulates (MACs) and operations (FLOPs) of one item,
activation memory of the batch, and the receptive field in places of the data: how many a unit
sees, how far apart two neighbours' views begin, and where the first begins.

Below: parts, so a teacher and its student apart; the memory of a forward pass and of a training
step, as if each blob were let go after its last reader.

Data need not be there where crop_size, the layer or --input-shape data=3x227x227 says how large an
item is. Where shapes cannot be worked out, the table has what the prototxt says, and the fault
ends the command with 1.
"""

from __future__ import annotations

import argparse
import json
import sys

from kdnet.cli._arguments import add_state, count, input_shapes, split
from kdnet.cli._python import add_python, python_layers
from kdnet.errors import render_all

NAME = "summarize"
HELP = "show layers, shapes, costs and memory of a net"
_NUMBERS = ("parameters", "MACs", "FLOPs", "memory")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET", help="a net prototxt")
    parser.add_argument(
        "--phase", type=str.upper, choices=("TRAIN", "TEST"), default="TRAIN", help="(TRAIN)"
    )
    parser.add_argument(
        "--weights",
        metavar="F[,F]",
        action="append",
        default=[],
        help="show what these files would fill, too",
    )
    parser.add_argument(
        "-w",
        "--max-width",
        "--max_width",
        type=count,
        default=30,
        metavar="N",
        help="of a column (30); 0 for any",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_state(parser)
    add_python(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table to stdout, a fault to stderr."""
    from kdnet.cli._table import print_table
    from kdnet.compile.summary_text import HEADINGS, as_json, cells, notes
    from kdnet.runtime.summary import SummaryOptions, summarize_file
    from kdnet.schema import kdnet_pb2 as pb

    wanted = SummaryOptions(
        options.path,
        pb.Phase.Value(options.phase),
        split(options.weights),
        options.level,
        split(options.stage),
        input_shapes(options.input_shape),
    )
    with python_layers(options):
        found = summarize_file(wanted)
    if options.json:
        print(json.dumps(as_json(found.summary), indent=1))
    else:
        lines = cells(found.summary)
        headings = HEADINGS[: len(lines[0])]
        print_table(headings, lines, right=_NUMBERS, widest=options.max_width)
        for line in notes(found.summary):
            print(line)
        if found.audit:
            print(found.audit.text())
    if found.fault:
        print(render_all(found.fault.diagnostics), file=sys.stderr)
        return found.fault.exit_code
    return 0
