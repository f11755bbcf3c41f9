"""Time every layer of a net, forward and backward.

In phase TRAIN a whole training step is timed, in phase TEST, or where there is nothing to train,
the forward pass. Lines as Caffe prints them go to stderr, a table by cost to stdout. What the
runtime fused is counted where it is computed, and what no layer takes is told too. The code of a
Python layer is timed as it is called; what is computed for it alone is told apart.
"""

from __future__ import annotations

import argparse
import sys

from kdnet.cli._arguments import (
    add_device,
    add_model,
    add_state,
    add_synthetic,
    input_shapes,
    positive,
    seed,
    split,
    the_path,
)
from kdnet.cli._caffe_flags import add_glog, add_gpu, as_in_caffe, device_of, tell_ignored
from kdnet.cli._python import add_python, python_layers

NAME = "time"
HELP = "time every layer of a net, forward and backward"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", nargs="?", metavar="NET", help="a net prototxt")
    add_model(parser)
    phase = parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), default="TRAIN", help="the net's phase (TRAIN)"
    )
    iterations = parser.add_argument(
        "--iterations", type=positive, default=50, metavar="N", help="runs to time (50)"
    )
    for action in (phase, iterations):
        as_in_caffe(parser, action)
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of fillers and batches")
    parser.add_argument(
        "--json", metavar="FILE", help="write it all as JSON too; - for stdout, instead of text"
    )
    add_device(parser)
    add_gpu(parser)
    add_state(parser)
    add_synthetic(parser)
    add_python(parser)
    add_glog(parser)


def run(options: argparse.Namespace) -> int:
    """Time the net; the table goes to stdout, the log to stderr."""
    from kdnet.runtime import CaffeLog
    from kdnet.runtime.timing import TimeOptions, time_net
    from kdnet.runtime.timing_report import as_json, as_text, log_timing
    from kdnet.weights import atomic_write

    wanted = TimeOptions(
        path=the_path(options, NAME, "NET"),
        phase=options.phase,
        iterations=options.iterations,
        device=device_of(options) or "auto",
        seed=options.seed,
        level=options.level,
        stages=split(options.stage),
        input_shapes=input_shapes(options.input_shape),
        synthetic_data=options.synthetic_data,
    )
    log = CaffeLog(sys.stderr)
    tell_ignored(options, log)
    with python_layers(options):
        timing = time_net(wanted, log)
    log_timing(timing, log)
    if options.json == "-":
        print(as_json(timing), end="")
        return 0
    if options.json:
        with atomic_write(options.json) as file:
            file.write(as_json(timing).encode())
    print(as_text(timing), end="")
    return 0
