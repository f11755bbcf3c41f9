"""``kdnet sweep``: a grid of settings trained as students side by side, or one after another."""

from __future__ import annotations

import gc
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from kdnet.errors import Diagnostic, RunError, UsageError, did_you_mean, fail
from kdnet.net import last_makers
from kdnet.net.solver import NET_FIELDS
from kdnet.runtime import log as places
from kdnet.runtime.device import Device
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import Plan, TrainOptions, make_plan
from kdnet.runtime.setup import check_solver, choose_run_device, tell_ignored
from kdnet.runtime.signals import StopRequest
from kdnet.runtime.snapshots import check_place
from kdnet.runtime.sweep.axes import is_loss
from kdnet.runtime.sweep.grid import Grid, Setting, make_grid, net_text
from kdnet.runtime.sweep.groups import Group, groups_of, student_bytes, students_at_once
from kdnet.runtime.sweep.loop import StudentTrainer
from kdnet.runtime.sweep.plot import draw
from kdnet.runtime.sweep.results import (
    Results,
    Summary,
    best_of,
    load,
    save,
    save_summary,
    summarise,
)
from kdnet.runtime.sweep.students import compile_students, is_score, save_student
from kdnet.runtime.sweep.values import read_variable
from kdnet.runtime.trainer import TestNet
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text
from kdnet.weights import WeightFile, atomic_write, read_weights


@dataclass(frozen=True)
class SweepOptions:
    """What ``kdnet sweep`` was asked for.

    Attributes:
        train: the run that is varied; its ``out`` is the folder of the results.
        variables: arguments of ``--set``.
        seeds: how many, from the run's own on.
        side_by_side: students a graph; None for as many as memory allows.
        by: the report by which settings are compared; None for the first metric.
        fresh: forget the results of an earlier sweep in the folder.
        snapshots: write every student's weights.
        nets: write every setting's net and solver.
        on_step: told after each step the updates of all students made so far, and those that
            the sweep will make.
    """

    train: TrainOptions
    variables: tuple[str, ...] = ()
    seeds: int = 1
    side_by_side: int | None = None
    by: str | None = None
    fresh: bool = False
    snapshots: bool = False
    nets: bool = False
    on_step: Callable[[int, int], None] = lambda _done, _all: None


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep found.

    ``report`` is the score by which ``best`` was chosen, ``highest`` whether more of it is better.
    """

    net: str
    variables: tuple[str, ...]
    seeds: tuple[int, ...]
    report: str
    highest: bool
    summaries: tuple[Summary, ...]
    best: Summary | None
    folder: str
    students_per_graph: int
    seconds: float


@dataclass
class _Sweep:
    """A sweep under way."""

    options: SweepOptions
    plan: Plan
    grid: Grid
    device: Device
    log: CaffeLog
    folder: Path
    results: Results
    files: list[WeightFile]
    stop: StopRequest | None
    widest: int = 0
    audited: bool = False
    updates: int = 0
    all_updates: int = 0

    @property
    def table(self) -> str:
        return str(self.folder / "results.csv")


def run_sweep(
    options: SweepOptions, log: CaffeLog, stop: StopRequest | None = None
) -> SweepOutcome:
    """Train every setting that has no result yet, and write tables and the plot.

    Raises:
        KdnetError: the first stage's faults.
        RunInterruptedError: a signal asked to stop; finished settings are kept.
    """
    began = time.perf_counter()
    sweep = _open(options, log, stop)
    settings = sweep.grid.settings
    pending = [setting for setting in settings if not sweep.results.has(setting)]
    if len(pending) < len(settings):
        done = len(settings) - len(pending)
        log.line(places.OWN, f'{done} of {len(settings)} settings are in "{sweep.table}" already')
    sweep.results.drop(pending)
    if options.nets:
        _write_nets(sweep)
    sweep.all_updates = sum(setting.solver.message.max_iter for setting in pending)
    for group in groups_of(pending):
        _run_group(sweep, group)
    return _finish(sweep, time.perf_counter() - began)


def _open(options: SweepOptions, log: CaffeLog, stop: StopRequest | None) -> _Sweep:
    variables = [read_variable(text) for text in options.variables]
    plan = make_plan(options.train, log)
    check_solver(plan.solver)
    tell_ignored(plan.solver, log)
    device, why = choose_run_device(options.train, plan.solver)
    log.line(places.OWN, f"Device: {device} ({why}); data and first seed: {plan.seed}")
    files = [*plan.renamed_weights(), *(read_weights(path) for path in plan.weight_files)]
    digest = _digest(plan, files)
    grid = make_grid(plan, variables, options.seeds, provider=device.kind, digest=digest)
    known = reports_of(grid.settings[0])
    if options.by is not None and options.by not in known:
        text = f'the net reports no "{options.by}"'
        hint = did_you_mean(options.by, known) or (f"it reports {', '.join(known)}",)
        fail(UsageError, "unknown-report", text, help=hint)
    folder = Path(options.train.out or f"runs/sweep-{_stem(plan)}")
    table = str(folder / "results.csv")
    results = Results(grid.names) if options.fresh else load(table, grid.names)
    return _Sweep(options, plan, grid, device, log, folder, results, files, stop)


def _stem(plan: Plan) -> str:
    message = plan.solver.message
    return Path(plan.net_path or message.net or plan.solver.path or "net").stem


def _digest(plan: Plan, files: Sequence[WeightFile]) -> bytes:
    """Of what results depend on beside nets, solvers and seeds."""
    found = hashlib.sha256()
    for file in files:
        for layer in file.layers:
            found.update(layer.name.encode())
            for blob in layer.blobs:
                found.update(np.ascontiguousarray(blob).tobytes())
    batches = [count for _, count in plan.tests]
    shapes = sorted(plan.options.input_shapes.items())
    found.update(repr((plan.seed, batches, shapes)).encode())
    return found.digest()


def reports_of(setting: Setting) -> dict[str, bool]:
    """What a student is judged by, and whether more of it is better; metrics come first."""
    nets = setting.variant.nets
    tested = list(enumerate(nets))[1:] or [(0, nets[0])]
    metrics, losses = {}, {}
    for number, net in tested:
        prefix = f"test{number - 1}/" if len(tested) > 1 else ""
        makers = last_makers(net)
        for blob in net.outputs:
            layer = net.layers[makers[blob]]
            if makers[blob] not in setting.variant.moving[number]:
                continue
            if is_loss(layer):
                losses[prefix + blob] = False
            elif is_score(layer):
                metrics[prefix + blob] = True
    return metrics | losses


def _run_group(sweep: _Sweep, group: Group) -> None:
    """Train a group's settings, as many at once as fit."""
    pending, most = (
        group.settings,
        students_at_once(group, sweep.options.side_by_side, sweep.device),
    )
    _tell_group(sweep, group, most)
    while pending:
        count = ceil(len(pending) / ceil(len(pending) / most))
        try:
            _run_students(sweep, group, pending[:count])
        except RunError as error:
            if count == 1 or error.diagnostics[0].code != "out-of-memory":
                raise
            most = count // 2
            text = f"not enough memory for {count} students in one graph: now {most} at a time"
            sweep.log.diagnostic(Diagnostic("fewer-students", text, severity="warning"))
            # The graph that did not fit must be gone before the next is made.
            error.__traceback__ = None
            gc.collect()
            continue
        pending = pending[count:]


def _tell_group(sweep: _Sweep, group: Group, most: int) -> None:
    count, size = len(group.settings), student_bytes(group) / 2**20
    text = f"{count} settings, {min(most, count)} students in one graph"
    text += f", each of {size:.0f} MiB by estimate"
    if group.alone and count > 1:
        text += f"; one after another, since {group.alone}"
    sweep.log.line(places.OWN, text)


def _run_students(sweep: _Sweep, group: Group, settings: Sequence[Setting]) -> None:
    plan, log = sweep.plan, sweep.log
    sweep.results.drop(settings)
    students = compile_students(plan, group, settings, sweep.device, sweep.files)
    if not sweep.audited:
        for line in students.audit.text().splitlines():
            log.line(places.OWN, line)
        check_place(sweep.table)
    sweep.audited = True
    first = settings[0].variant.nets
    with ExitStack() as opened:
        sources = []
        for net in first:
            sources.append(open_sources(net, seed=plan.seed, shapes=plan.options.input_shapes))
            for source in sources[-1]:
                opened.callback(source.close)
        tests = [
            TestNet(evaluation, own, count)
            for evaluation, own, (_, count) in zip(
                students.evaluations, sources[1:], plan.tests, strict=True
            )
        ]
        trainer = StudentTrainer(students, sweep.device, sources[0], tests, log)

        def tell(iteration: int, scores: list[dict[str, float]]) -> None:
            _record(sweep, settings, iteration, scores)

        def step(iteration: int) -> None:
            made = sweep.updates + iteration * len(settings)
            sweep.options.on_step(made, sweep.all_updates)

        trainer.on_iteration = step
        trainer.solve(plan.seed, tell, sweep.stop)
    sweep.updates += students.solver.message.max_iter * len(settings)
    sweep.widest = max(sweep.widest, len(settings))
    if sweep.options.snapshots:
        _save_students(sweep, trainer)


def _record(
    sweep: _Sweep,
    settings: Sequence[Setting],
    iteration: int,
    scores: Sequence[dict[str, float]],
) -> None:
    for setting, found in zip(settings, scores, strict=True):
        listed = ", ".join(f"{name} = {value:g}" for name, value in found.items())
        label = setting.label or "the student"
        sweep.log.line(places.OWN, f"Iteration {iteration}, {label}: {listed}")
        sweep.results.add(setting, iteration, found)
    save(sweep.results, sweep.table)


def _save_students(sweep: _Sweep, trainer: StudentTrainer) -> None:
    weights = trainer.weights()
    folder = sweep.folder / "snapshots"
    folder.mkdir(exist_ok=True)
    names = _file_names(sweep)
    for number, setting in enumerate(trainer.students.settings):
        path = folder / f"{names[setting.key]}.caffemodel"
        save_student(trainer.students, number, weights, str(path))
    sweep.log.line(places.OWN, f'{len(trainer.students.settings)} weight files in "{folder}"')


def _write_nets(sweep: _Sweep) -> None:
    check_place(sweep.table)
    folder = sweep.folder / "nets"
    folder.mkdir(exist_ok=True)
    names = _file_names(sweep)
    for setting in sweep.grid.settings:
        name = names[setting.key]
        message = pb.SolverParameter()
        message.CopyFrom(setting.solver.message)
        for name_of_net in NET_FIELDS:
            message.ClearField(name_of_net)
        message.net, message.random_seed = f"{name}.prototxt", setting.seed
        edits = setting.variant.edits
        texts = {"": net_text(sweep.plan.net.message, edits)}
        if message.test_net or message.test_net_param:
            message.ClearField("test_net_param")
            message.test_net[:] = [
                f"{name}_test{i}.prototxt" for i in range(len(sweep.plan.tests))
            ]
            for index, (net, _) in enumerate(sweep.plan.tests):
                texts[f"_test{index}"] = net_text(net.message, edits)
        texts["_solver"] = write_text(message)
        for suffix, text in texts.items():
            with atomic_write(folder / f"{name}{suffix}.prototxt") as file:
                file.write(text.encode())


def _file_names(sweep: _Sweep) -> dict[str, str]:
    """A file name for each setting's key: its label as far as file names go."""
    found: dict[str, str] = {}
    for setting in sweep.grid.settings:
        plain = re.sub(r"[^\w.=+-]", "_", setting.label) or _stem(sweep.plan)
        taken = plain in found.values()
        found[setting.key] = f"{plain}-{setting.key}" if taken else plain
    return found


def _finish(sweep: _Sweep, seconds: float) -> SweepOutcome:
    settings, results, grid = sweep.grid.settings, sweep.results, sweep.grid
    save(results, sweep.table)
    summaries = summarise(results, settings)
    save_summary(grid.names, summaries, str(sweep.folder / "summary.csv"))
    known = reports_of(settings[0])
    report = sweep.options.by or next(iter(known), "")
    highest = known.get(report, True)
    with atomic_write(sweep.folder / "plot.svg") as file:
        file.write(draw(results, grid, report).encode())
    sweep.log.line(places.OWN, f'results.csv, summary.csv and plot.svg in "{sweep.folder}"')
    return SweepOutcome(
        sweep.plan.net.name,
        grid.names,
        grid.seeds,
        report,
        highest,
        tuple(summaries),
        best_of(summaries, report, highest=highest),
        str(sweep.folder),
        sweep.widest,
        seconds,
    )
