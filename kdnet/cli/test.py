"""Score a net on its TEST data: the mean of every output over a number of batches."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kdnet.cli._arguments import (
    add_device,
    add_model,
    add_state,
    add_synthetic,
    add_weights,
    input_shapes,
    positive,
    split,
    the_path,
)
from kdnet.cli._caffe_flags import (
    add_glog,
    add_gpu,
    add_signals,
    as_in_caffe,
    device_of,
    stop_request,
    tell_ignored,
)
from kdnet.cli._python import add_python, python_layers

if TYPE_CHECKING:
    from kdnet.runtime import Scores

NAME = "test"
HELP = "score a net on its test data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", nargs="?", metavar="NET", help="a net prototxt")
    add_model(parser)
    add_weights(parser)
    iterations = parser.add_argument(
        "--iterations", type=positive, default=50, metavar="N", help="batches to run (50)"
    )
    as_in_caffe(parser, iterations)
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the scores as JSON too; - for stdout, instead of text",
    )
    add_device(parser)
    add_gpu(parser)
    add_state(parser)
    add_synthetic(parser)
    add_python(parser)
    add_signals(parser)
    add_glog(parser)


def run(options: argparse.Namespace) -> int:
    """Score the net; the result goes to stdout, the log to stderr."""
    from kdnet.runtime import CaffeLog, TestOptions, test_net
    from kdnet.runtime.tester import leave_if_stopped

    wanted = TestOptions(
        path=the_path(options, "test", "NET"),
        weights=split(options.weights),
        iterations=options.iterations,
        device=device_of(options) or "auto",
        level=options.level,
        stages=split(options.stage),
        allow_unloaded=options.allow_unloaded,
        input_shapes=input_shapes(options.input_shape),
        synthetic_data=options.synthetic_data,
    )
    log = CaffeLog(sys.stderr)
    tell_ignored(options, log)
    with python_layers(options), stop_request(options) as stop:
        scores = test_net(wanted, log, stop)
    _print(scores, options.json)
    leave_if_stopped(scores, wanted, stop)
    return 0


def _print(scores: Scores, json: str | None) -> None:
    from kdnet.runtime.scoring import as_json, as_text
    from kdnet.weights import atomic_write

    outputs = {report.blob: scores[report.blob] for report in scores.reports}
    as_object = as_json(outputs, scores.heads, scores.iterations)
    if json == "-":
        print(as_object, end="")
        return
    if json:
        with atomic_write(json) as file:
            file.write(as_object.encode())
    for blob, value in outputs.items():
        print(f"{blob} = {value:g}")
    if scores.heads:
        print(f"\n{as_text(scores.heads)}", end="")
