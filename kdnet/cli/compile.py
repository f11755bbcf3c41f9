"""Compile a net and its solver into one ONNX file that trains wherever ONNX Runtime runs.

The file holds the frozen weights, the initial state as default values of the state inputs, and
metadata that names state pairs, data, noise, learning rate and losses. With iter_size above 1 two
files are written, <stem>.gradient.onnx and <stem>.update.onnx.
"""

from __future__ import annotations

import argparse
import sys

from kdnet.cli._arguments import (
    add_state,
    add_synthetic,
    add_weights,
    seed,
    training,
)

NAME = "compile"
HELP = "write the training step as an ONNX file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET|SOLVER", help="a net or a solver prototxt")
    parser.add_argument("--solver", metavar="S", help="the solver, when NET is a net")
    add_weights(parser)
    parser.add_argument("-o", "--output", metavar="F", required=True, help="the file to write")
    parser.add_argument(
        "--provider", choices=("cpu", "cuda"), default="cpu", help="for which lowerings are chosen"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="of the fillers")
    add_state(parser)
    add_synthetic(parser)


def run(options: argparse.Namespace) -> int:
    """Compile and write; the paths go to stdout."""
    from kdnet.runtime import CaffeLog, compile_to_file

    log = CaffeLog(sys.stderr)
    paths = compile_to_file(training(options), log, options.output, options.provider)
    for path in paths:
        print(path)
    return 0
