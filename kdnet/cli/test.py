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
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the scores as JSON too; - for stdout, instead of text",
    )
    add_device(parser)
    add_state(parser)


def run(options: argparse.Namespace) -> int:
    """Score the net; the result goes to stdout, the log to stderr."""
    from kdnet.runtime import CaffeLog, TestOptions, test_net
    from kdnet.runtime.scoring import as_json, as_text
    from kdnet.weights import atomic_write

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
    outputs = {report.blob: scores[report.blob] for report in scores.reports}
    as_object = as_json(outputs, scores.heads, options.iterations)
    if options.json == "-":
        print(as_object, end="")
        return 0
    if options.json:
        with atomic_write(options.json) as file:
            file.write(as_object.encode())
    for blob, value in outputs.items():
        print(f"{blob} = {value:g}")
    if scores.heads:
        print(f"\n{as_text(scores.heads)}", end="")
    return 0
