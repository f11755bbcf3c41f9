"""From paths and flags to a run that is ready: read, resolve, compile, load, open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import (
    Evaluation,
    Training,
    WeightSlot,
    compile_evaluation,
    compile_training,
    write_training,
)
from kdnet.compile.debug_info import DebugProgram, DebugSettings, compile_debug
from kdnet.errors import Diagnostic, NetError, fail
from kdnet.net import NetModel, SolverModel
from kdnet.runtime import log as places
from kdnet.runtime.device import Device, choose_device
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import Plan, TrainOptions, make_plan, snapshot_prefix
from kdnet.runtime.rate import checked_rate, scheduled_at
from kdnet.runtime.snapshots import check_place, resumed
from kdnet.runtime.teacher_cache import plan_cache
from kdnet.runtime.trainer import Run, TestNet
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text
from kdnet.solvers import Plateau
from kdnet.weights import read_weights

Array = NDArray[Any]


# What a solver may say that changes nothing here, and why.
IGNORED = {
    "layer_wise_reduce": "one device trains",
}


def choose_run_device(options: TrainOptions, solver: SolverModel) -> tuple[Device, str]:
    """``--device`` wins; ``solver_mode: CPU`` means the CPU, and GPU alone means auto."""
    if options.device:
        return choose_device(options.device, solver.message.device_id)
    if (
        solver.message.HasField("solver_mode")
        and solver.message.solver_mode == pb.SolverParameter.CPU
    ):
        device, _ = choose_device("cpu")
        return device, "solver_mode: CPU"
    return choose_device("auto", solver.message.device_id)


def all_slots(training: Training, evaluations: Sequence[Evaluation]) -> list[WeightSlot]:
    """The train net's weights, then what only a test net has."""
    slots = {slot.name: slot for slot in training.weights}
    for evaluation in evaluations:
        for slot in evaluation.weights:
            known = slots.setdefault(slot.name, slot)
            if known.shape != slot.shape:
                text = (
                    f'layer "{slot.layer}": blob {slot.index} has shape {slot.shape} in the test '
                    f"net and {known.shape} in the train net"
                )
                raise NetError(Diagnostic("test-net-shape", text, slot.span))
    return list(slots.values())


def _values(plan: Plan, slots: Sequence[WeightSlot], log: CaffeLog) -> dict[str, Array]:
    """First values of the weights; the audit goes to the log."""
    options = plan.options
    files = plan.weight_files
    for name in [*(path for path, _ in plan.joined_weights), *files]:
        log.line(places.FINETUNING, f"Finetuning from {name}")
    if plan.resume:
        files.append(_beside(plan.resume.learned_net, options.snapshot or ""))
    values, audit = initial_values(
        slots,
        [*plan.renamed_weights(), *(read_weights(path) for path in files)],
        seed=plan.seed,
        allow_unloaded=options.allow_unloaded,
    )
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    return values


def _compile_train(plan: Plan, device: Device) -> Training:
    shapes = plan.options.input_shapes
    return compile_training(plan.net, plan.solver, input_shapes=shapes, provider=device.kind)


def _compile_test(plan: Plan, training: Training, net: NetModel, device: Device) -> Evaluation:
    return compile_evaluation(
        net,
        live=training.live,
        input_shapes=plan.options.input_shapes,
        provider=device.kind,
        schedules=training.schedules,
    )


def _tell_python(plan: Plan, net: NetModel, log: CaffeLog) -> bool:
    """Whether a net has layers that are no part of any program; if so the log says it."""
    found = next((layer for layer in net.layers if layer.type == "Python"), None)
    if found is not None:
        text = f'debug_info is ignored in phase {net.phase_name}: "{found.name}" is a Python layer'
        span = plan.solver.span("debug_info")
        log.diagnostic(Diagnostic("ignored-solver-field", text, span, severity="warning"))
    return found is not None


def _debug(
    plan: Plan, training: Training, net: NetModel, device: Device, log: CaffeLog
) -> DebugProgram | None:
    """What debug_info logs of a net, where the solver asks for it."""
    if not plan.solver.message.debug_info or _tell_python(plan, net, log):
        return None
    settings = DebugSettings(
        live=training.live,
        input_shapes=plan.options.input_shapes,
        provider=device.kind,
        schedules=training.schedules,
        accumulated=frozenset(slot.name for slot in training.accumulators),
        backward=net is training.net,
    )
    return compile_debug(net, settings)


def _test_nets(
    plan: Plan,
    training: Training,
    evaluations: Sequence[Evaluation],
    device: Device,
    log: CaffeLog,
) -> list[TestNet]:
    """The compiled test nets with their data, and what debug_info says of them."""
    shapes = plan.options.input_shapes
    return [
        TestNet(
            evaluation,
            open_sources(net, seed=plan.seed, shapes=shapes),
            count,
            _debug(plan, training, net, device, log),
        )
        for evaluation, (net, count) in zip(evaluations, plan.tests, strict=True)
    ]


def prepare(options: TrainOptions, log: CaffeLog) -> Run:
    """A run that is ready to train.

    Raises:
        KdnetError: the first stage's faults.
    """
    plan = make_plan(options, log)
    check_solver(plan.solver)
    tell_ignored(plan.solver, log)
    device, why = choose_run_device(options, plan.solver)
    log.line(places.OWN, f"Device: {device} ({why}); seed: {plan.seed}")
    cached = plan_cache(plan, options.cache, device) if options.cache else None
    training = cached.training if cached else _compile_train(plan, device)
    evaluations = [_compile_test(plan, training, net, device) for net, _ in plan.tests]
    values = _values(plan, all_slots(training, evaluations), log)
    values = cached.with_aliases(values) if cached else values
    resume = resumed(plan.resume, training, options.snapshot or "")
    prefix, message = snapshot_prefix(plan), plan.solver.message
    if message.snapshot or message.snapshot_after_train:
        check_place(prefix)
    sources = open_sources(plan.net, seed=plan.seed, shapes=options.input_shapes)
    if cached:
        start = training.iter_size * (resume.iteration if resume else 0)
        sources = cached.sources(sources, values, log, start)
    run = Run(
        training=training,
        solver=plan.solver,
        device=device,
        values=values,
        sources=sources,
        tests=_test_nets(plan, training, evaluations, device, log),
        log=log,
        seed=plan.seed,
        prefix=prefix,
        max_iter=message.max_iter,
        resume=resume,
        full_snapshots=options.full_snapshots,
        debug=_debug(plan, training, training.net, device, log),
    )
    _tell_notes(run)
    return run


def check_solver(solver: SolverModel) -> None:
    """A run must know when to end, and how many batches and losses it takes together.

    Raises:
        NetError: missing-solver-field, bad-solver-field.
    """
    message = solver.message
    if not message.HasField("max_iter") or message.max_iter < 0:
        text = "the solver does not say how long to train: max_iter"
        hint = ("add max_iter to it, or pass --max-iter N",)
        span = solver.span("max_iter")
        fail(NetError, "missing-solver-field", text, span=span, help=hint)
    for name in ("average_loss", "iter_size"):
        value = getattr(message, name)
        if value < 1:
            text = f"{name} must be at least 1; it is {value}"
            fail(NetError, "bad-solver-field", text, span=solver.span(name))


def tell_ignored(solver: SolverModel, log: CaffeLog) -> None:
    """Name the solver's fields that change nothing, where they differ from their default."""
    stated = solver.message.ListFields()
    for field, value in stated:
        if field.name in IGNORED and value != field.default_value:
            text = f"{field.name} is ignored: {IGNORED[field.name]}"
            span = solver.span(field.name)
            log.diagnostic(Diagnostic("ignored-solver-field", text, span, severity="warning"))


def _tell_notes(run: Run) -> None:
    """Warnings of the data sources, each once."""
    sources = [*run.sources, *(source for test in run.tests for source in test.sources)]
    for note in dict.fromkeys(note for source in sources for note in source.notes):
        run.log.diagnostic(note)


def compile_to_file(
    options: TrainOptions, log: CaffeLog, path: str, provider: str = "cpu"
) -> list[str]:
    """Write the training step as ONNX files that stand alone; their paths.

    Raises:
        KdnetError: the first stage's faults.
    """
    plan = make_plan(options, log)
    training = compile_training(
        plan.net, plan.solver, input_shapes=options.input_shapes, provider=provider
    )
    values = _values(plan, training.weights, log)
    rate = checked_rate(plan.solver, Plateau())
    iterations = range(min(100, plan.solver.message.max_iter))
    moving = [scheduled_at(training.schedules, iteration) for iteration in iterations]
    extra = {
        "net": plan.net.name,
        "seed": plan.seed,
        "solver": write_text(plan.solver.message),
        "rates": [rate(iteration) for iteration in iterations],
        "scheduled": moving,
    }
    return write_training(training, values, path, extra)


def _beside(learned_net: str, snapshot: str) -> str:
    """The weights of a snapshot: beside the .solverstate, else as named.

    The two files are written together, so the one beside belongs to it wherever both were moved.
    """
    beside = Path(snapshot).parent / Path(learned_net).name
    return str(beside) if beside.exists() else learned_net
