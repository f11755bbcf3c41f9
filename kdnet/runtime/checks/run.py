"""From a net's path to its findings."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import Forward, trace_forward
from kdnet.compile.probe import Probe, build_probe
from kdnet.compile.weights import weight_slots
from kdnet.errors import DataError, Diagnostic, WeightsError
from kdnet.graph import Emitter
from kdnet.net import SolverModel
from kdnet.runtime.checks.registry import Subject, rules
from kdnet.runtime.checks.sample import Sample, Setting, take_sample
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.hosted import open_engine
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import Plan, TrainOptions, make_plan
from kdnet.runtime.rate import Rate, scheduled_at
from kdnet.runtime.setup import check_solver, choose_run_device
from kdnet.solvers import schedules_of, transforms_of
from kdnet.weights import check_filler, read_weights

Array = NDArray[Any]


@dataclass(frozen=True)
class CheckOptions:
    """What ``kdnet check`` was asked for: a net as for training, and how much data to look at."""

    training: TrainOptions
    batches: int = 4


@dataclass
class Findings:
    """What was found, how much data was looked at, and why not more."""

    found: list[Diagnostic] = field(default_factory=list)
    items: int = 0
    unseen: str = ""


def check_training(options: CheckOptions, log: CaffeLog) -> Findings:
    """Look at a net in TRAIN phase.

    Raises:
        KdnetError: the faults that training would stop at before its first step, except that data
            or weights that are not there only leave the checks out that need them.
    """
    plan = make_plan(options.training, log)
    _check_solver(plan.solver)
    schedules = schedules_of(plan.solver, plan.net)
    device, _ = choose_run_device(options.training, plan.solver)
    forward = trace_forward(
        plan.net, Emitter(provider=device.kind), options.training.input_shapes, schedules
    )
    probe = build_probe(forward)
    _check_rest(plan, forward)
    findings = Findings()
    sample = None
    if options.batches and not probe.measures:
        findings.unseen = "nothing in the net can be measured"
    elif options.batches:
        scheduled = scheduled_at(schedules, 0)
        try:
            with ExitStack() as opened:
                sources = open_sources(
                    plan.net, seed=plan.seed, shapes=options.training.input_shapes
                )
                for source in sources:
                    opened.callback(source.close)
                setting = Setting(device, sources, scheduled, plan.seed, options.batches)
                sample = _sample(plan, probe, setting)
        except (DataError, WeightsError) as error:
            if isinstance(error, WeightsError) and (plan.weight_files or plan.joined_weights):
                raise
            findings.unseen = error.diagnostics[0].message
    findings.items = sample.items if sample else 0
    subject = Subject(probe, sample)
    findings.found = [fault for rule in rules().values() for fault in rule(subject)]
    return findings


def _check_solver(solver: SolverModel) -> None:
    check_solver(solver)
    Rate(solver)
    transforms_of(solver)


def _check_rest(plan: Plan, forward: Forward) -> None:
    """Refuse test nets that cannot run, and what no file fills and no filler can."""
    for net, _ in plan.tests:
        with suppress(DataError):
            emitter = Emitter(provider=forward.g.provider)
            trace_forward(net, emitter, plan.options.input_shapes, forward.schedules)
    if plan.weight_files or plan.joined_weights:
        return
    for slot in weight_slots(forward.weights, frozenset(), frozenset(forward.trace.updates)):
        if slot.stored is None:
            check_filler(slot.filler, slot.shape, span=slot.filler_span or slot.span)


def _sample(plan: Plan, probe: Probe, setting: Setting) -> Sample:
    program, slots, hosted = probe.program()
    files = [*plan.renamed_weights(), *(read_weights(path) for path in plan.weight_files)]
    allow = plan.options.allow_unloaded
    values, _ = initial_values(slots, files, seed=plan.seed, allow_unloaded=allow)
    engine = open_engine(program, hosted, setting.device, values)
    return take_sample(probe, engine, setting)
