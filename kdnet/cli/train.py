"""Train a net.

NET alone runs with the solver beside it (<stem>_solver.prototxt, else the one solver there that
names the net), else with stated defaults. A frozen layer that no weight file fills stops the run.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from kdnet.cli._arguments import (
    add_device,
    add_model,
    add_state,
    add_synthetic,
    add_weights,
    count,
    positive,
    seed,
    the_path,
    training,
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
from kdnet.cli._progress import progress
from kdnet.cli._python import add_python, python_layers
from kdnet.errors import UsageError, fail

if TYPE_CHECKING:
    from kdnet.data.teacher_cache import CacheOptions

NAME = "train"
HELP = "train a net, from a net or a solver file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", nargs="?", metavar="NET|SOLVER", help="a net or a solver prototxt")
    solver = parser.add_argument(
        "--solver", metavar="S", help="the solver, alone or for the net NET"
    )
    add_model(parser)
    add_weights(parser)
    snapshot = parser.add_argument("--snapshot", metavar="F", help="a .solverstate to go on from")
    for action in (solver, snapshot):
        as_in_caffe(parser, action)
    add_device(parser)
    add_gpu(parser)
    parser.add_argument("--max-iter", type=count, metavar="N", help="iterations in all")
    parser.add_argument("--out", metavar="DIR", help="where snapshots go")
    parser.add_argument("--seed", type=seed, metavar="N", help="of fillers, batches and noise")
    parser.add_argument("--log", metavar="FILE", help="append the log lines to a file too")
    parser.add_argument(
        "--full", action="store_true", help="snapshots hold frozen layers (the teacher) too"
    )
    _add_cache(parser)
    add_state(parser)
    add_synthetic(parser)
    add_python(parser)
    add_signals(parser)
    add_glog(parser)


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-teacher",
        metavar="DIR",
        help="compute the outputs of frozen layers once a record, and keep them there",
    )
    parser.add_argument(
        "--cache-top-k",
        type=positive,
        default=0,
        metavar="K",
        help="of class scores, keep the K largest and what the others come to together",
    )
    parser.add_argument("--cache-fp16", action="store_true", help="keep them as float16")


def _cache(options: argparse.Namespace) -> CacheOptions | None:
    """What is kept of a teacher.

    Raises:
        UsageError: cache-without-folder, cache-with-python.
    """
    if options.cache_teacher and options.allow_python:
        text = "--cache-teacher cannot tell what Python layers make of a record"
        fail(UsageError, "cache-with-python", text, help=("leave out one of the two flags",))
    if options.cache_teacher:
        from kdnet.data.teacher_cache import CacheOptions

        return CacheOptions(options.cache_teacher, options.cache_top_k, options.cache_fp16)
    if options.cache_top_k or options.cache_fp16:
        flag = "--cache-top-k" if options.cache_top_k else "--cache-fp16"
        text = f"{flag} says how a teacher's outputs are kept, but not where"
        fail(UsageError, "cache-without-folder", text, help=("add --cache-teacher DIR",))
    return None


def _path(options: argparse.Namespace) -> str:
    """The file to train: a solver may stand alone, as Caffe has it.

    Raises:
        UsageError: not-a-solver.
    """
    from kdnet.runtime.plan import is_solver

    solver: str | None = options.solver
    if not solver or options.path or options.model:
        return the_path(options, NAME, "NET|SOLVER")
    if not is_solver(solver):
        fail(UsageError, "not-a-solver", f'--solver names "{solver}", which is no solver')
    options.solver = None
    return solver


def run(options: argparse.Namespace) -> int:
    """Train."""
    from kdnet.runtime import CaffeLog, Trainer, prepare

    device = device_of(options)
    options.path = _path(options)
    wanted = training(
        options,
        snapshot=options.snapshot,
        device=device,
        max_iter=options.max_iter,
        out=options.out,
        full_snapshots=options.full,
        cache=_cache(options),
    )
    with python_layers(options), closing(CaffeLog(sys.stderr, options.log)) as log:
        tell_ignored(options, log)
        with closing(prepare(wanted, log)) as run, stop_request(options) as stop, progress(run):
            Trainer(run).solve(stop)
    return 0
