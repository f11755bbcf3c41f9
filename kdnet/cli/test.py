"""Score a net on its TEST data: the mean of every output over a number of batches."""

from __future__ import annotations

import argparse
import sys

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_weights,
    input_shapes,
    positive,
    split,
)

NAME = "test"
HELP = "score a net on its test data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET", help="a net prototxt")
    add_weights(parser)
    parser.add_argument(
        "--iterations", type=positive, default=50, metavar="N", help="batches to run (50)"
    )
    add_device(parser)
    add_state(parser)


def run(options: argparse.Namespace) -> int:
    """Score the net; the result goes to stdout, the log to stderr."""
    from kdnet.runtime import CaffeLog, TestOptions, test_net

    scores = test_net(
        TestOptions(
            path=options.path,
            weights=split(options.weights),
            iterations=options.iterations,
            device=options.device or "auto",
            level=options.level,
            stages=split(options.stage),
            allow_unloaded=options.allow_unloaded,
            input_shapes=input_shapes(options.input_shape),
        ),
        CaffeLog(sys.stderr),
    )
    for report in scores.reports:
        print(f"{report.blob} = {scores[report.blob]:g}")
    return 0
