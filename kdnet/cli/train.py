"""Train a net.

NET alone runs with the solver beside it (<stem>_solver.prototxt, else the one solver there that
names the net), else with stated defaults. A frozen layer that no weight file fills stops the run.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_weights,
    count,
    input_shapes,
    seed,
    split,
)
from kdnet.cli._progress import progress

NAME = "train"
HELP = "train a net, from a net or a solver file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET|SOLVER", help="a net or a solver prototxt")
    parser.add_argument("--solver", metavar="S", help="the solver, when NET is a net")
    add_weights(parser)
    parser.add_argument("--snapshot", metavar="F", help="a .solverstate to go on from")
    add_device(parser)
    parser.add_argument("--max-iter", type=count, metavar="N", help="iterations in all")
    parser.add_argument("--out", metavar="DIR", help="where snapshots go")
    parser.add_argument("--seed", type=seed, metavar="N", help="of fillers, batches and noise")
    parser.add_argument("--log", metavar="FILE", help="append the log lines to a file too")
    parser.add_argument(
        "--full", action="store_true", help="snapshots hold frozen layers (the teacher) too"
    )
    add_state(parser)


def run(options: argparse.Namespace) -> int:
    """Train."""
    from kdnet.runtime import CaffeLog, StopRequest, Trainer, TrainOptions, prepare

    wanted = TrainOptions(
        path=options.path,
        solver=options.solver,
        weights=split(options.weights),
        snapshot=options.snapshot,
        device=options.device,
        max_iter=options.max_iter,
        out=options.out,
        seed=options.seed,
        level=options.level,
        stages=split(options.stage),
        allow_unloaded=options.allow_unloaded,
        full_snapshots=options.full,
        input_shapes=input_shapes(options.input_shape),
    )
    with (
        closing(CaffeLog(sys.stderr, options.log)) as log,
        closing(prepare(wanted, log)) as run,
        StopRequest() as stop,
        progress(run),
    ):
        Trainer(run).solve(stop)
    return 0
