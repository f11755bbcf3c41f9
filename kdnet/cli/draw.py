"""Draw a net with Graphviz.

OUT ends with .dot for text, or with .svg, .png, .pdf and others for a picture, which Graphviz's
program dot makes of that text. Layers are boxes: red convolutions, orange pooling, purple
InnerProduct, green in place, turquoise data, yellow losses and metrics, blue the rest; a dashed
border where no solver changes the weights. Teacher and student are framed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdnet.cli._arguments import split

NAME = "draw"
HELP = "draw a net with Graphviz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET", help="a net prototxt")
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write")
    parser.add_argument(
        "--rankdir",
        type=str.upper,
        choices=("TB", "LR", "BT", "RL"),
        default="LR",
        help="from top to bottom, left to right, and so on (LR)",
    )
    parser.add_argument(
        "--phase",
        type=str.upper,
        choices=("TRAIN", "TEST", "ALL"),
        default="ALL",
        help="whose layers (ALL)",
    )
    parser.add_argument(
        "--display-lrm",
        "--display_lrm",
        action="store_true",
        help="show what multiplies the rate of each weight",
    )
    parser.add_argument(
        "--level", type=int, default=0, metavar="N", help="the net's level, with a phase"
    )
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="S[,S]",
        help="the net's stages, with a phase",
    )


def run(options: argparse.Namespace) -> int:
    """Draw; the path goes to stdout."""
    from kdnet.runtime.drawing import DrawOptions, draw_file
    from kdnet.schema import kdnet_pb2 as pb

    draw_file(
        DrawOptions(
            options.path,
            options.out,
            options.rankdir,
            None if options.phase == "ALL" else pb.Phase.Value(options.phase),
            options.level,
            split(options.stage),
            options.display_lrm,
        )
    )
    print(options.out)
    return 0
