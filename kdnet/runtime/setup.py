"""From paths and flags to a run that is ready: read, resolve, compile, load, open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from kdnet.errors import Diagnostic, NetError, SchemaError, UsageError, fail
from kdnet.net import (
    NetModel,
    NetState,
    SolverModel,
    load_solver,
    resolve_net,
    solver_beside,
    solver_for_net,
    test_nets_of,
    train_net_of,
)
from kdnet.runtime import log as places
from kdnet.runtime.device import Device, choose_device
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.snapshots import Resume, load
from kdnet.runtime.trainer import Run, TestNet
from kdnet.schema import Located, read_net, write_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import learning_rate
from kdnet.weights import read_weights

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TrainOptions:
    """What ``kdnet train`` was asked for; None and empty mean "as the files say"."""

    path: str
    solver: str | None = None
    weights: tuple[str, ...] = ()
    snapshot: str | None = None
    device: str | None = None
    max_iter: int | None = None
    out: str | None = None
    seed: int | None = None
    level: int = 0
    stages: tuple[str, ...] = ()
    allow_unloaded: bool = False
    full_snapshots: bool = False
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    overrides: Mapping[str, object] = field(default_factory=dict)


def is_solver(path: str) -> bool:
    """Whether a prototxt is a solver rather than a net: by what parses."""
    try:
        message = load_solver(path).message
    except SchemaError:
        return False
    return bool(message.ListFields())


def find_solver(options: TrainOptions) -> tuple[SolverModel, str | None, str]:
    """The solver, the net file where it was named on its own, and a sentence on the choice."""
    if is_solver(options.path):
        if options.solver:
            text = f'"{options.path}" is a solver already; --solver names another'
            fail(UsageError, "two-solvers", text)
        return load_solver(options.path), None, ""
    if options.solver:
        return load_solver(options.solver), options.path, ""
    beside = solver_beside(options.path)
    if beside:
        return load_solver(beside), options.path, f'using the solver beside the net: "{beside}"'
    solver = solver_for_net(options.path)
    message = solver.message
    told = (
        f"no solver given and none beside the net: {message.type}, base_lr {message.base_lr:g}, "
        f"lr_policy {message.lr_policy}, momentum {message.momentum:g}, "
        f"weight_decay {message.weight_decay:g}, {message.max_iter} iterations"
    )
    return solver, options.path, told


def choose_run_device(options: TrainOptions, solver: SolverModel) -> tuple[Device, str]:
    """``--device`` wins; ``solver_mode: CPU`` means the CPU, and GPU alone means auto."""
    if options.device:
        return choose_device(options.device)
    if (
        solver.message.HasField("solver_mode")
        and solver.message.solver_mode == pb.SolverParameter.CPU
    ):
        device, _ = choose_device("cpu")
        return device, "solver_mode: CPU"
    return choose_device("auto")


def train_net(solver: SolverModel, net_path: str | None, options: TrainOptions) -> NetModel:
    """The net in TRAIN phase."""
    located = read_net(net_path) if net_path else train_net_of(solver)
    state = NetState(pb.TRAIN, options.level, options.stages).merged(located.message.state)
    if solver.message.HasField("train_state"):
        state = state.merged(solver.message.train_state)
    return resolve_net(located.message, located.source, state)


def test_nets(
    solver: SolverModel, net_path: str | None, options: TrainOptions
) -> list[tuple[NetModel, int]]:
    """Each test net with its number of batches.

    Raises:
        NetError: test-iter-count, unless there is one test_iter for each test net.
    """
    message = solver.message
    located: Sequence[Located[pb.NetParameter]]
    if net_path and not (message.test_net or message.test_net_param):
        located = [read_net(net_path)] * len(message.test_iter)
    else:
        located = test_nets_of(solver)
    if len(located) != len(message.test_iter):
        text = f"{len(message.test_iter)} test_iter for {len(located)} test nets"
        fail(NetError, "test-iter-count", text, span=solver.span("test_iter", 0))
    found = []
    for index, net in enumerate(located):
        state = NetState(pb.TEST, options.level, options.stages).merged(net.message.state)
        if index < len(message.test_state):
            state = state.merged(message.test_state[index])
        found.append((resolve_net(net.message, net.source, state), message.test_iter[index]))
    return found


def resolve_seed(options: TrainOptions, solver: SolverModel, resume: Resume | None) -> int:
    """``--seed``, else the resumed run's, else random_seed, else 0: a run always repeats."""
    if options.seed is not None:
        return options.seed
    if resume is not None and resume.seed is not None:
        return resume.seed
    return max(0, solver.message.random_seed)


def snapshot_prefix(options: TrainOptions, solver: SolverModel, net_path: str | None) -> str:
    """Where snapshots go: snapshot_prefix, moved into ``--out`` when that is given."""
    given = solver.message.snapshot_prefix
    stem = Path(net_path or solver.message.net or solver.path or "net").stem
    if not options.out:
        return given or stem
    name = given if given.endswith("/") else Path(given).name or stem
    return str(Path(options.out) / (stem if name.endswith("/") else name))


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


@dataclass(frozen=True)
class _Plan:
    """What the files and flags say, before anything is compiled."""

    options: TrainOptions
    solver: SolverModel
    net_path: str | None
    net: NetModel
    tests: Sequence[tuple[NetModel, int]]
    seed: int
    resume: Resume | None


def _plan(options: TrainOptions, log: CaffeLog) -> _Plan:
    solver, net_path, told = find_solver(options)
    if told:
        log.line(places.OWN, told)
    for name, value in options.overrides.items():
        setattr(solver.message, name, value)
    resume = load(options.snapshot) if options.snapshot else None
    net = train_net(solver, net_path, options)
    tests = test_nets(solver, net_path, options)
    seed = resolve_seed(options, solver, resume)
    return _Plan(options, solver, net_path, net, tests, seed, resume)


def _values(plan: _Plan, slots: Sequence[WeightSlot], log: CaffeLog) -> dict[str, Array]:
    """First values of the weights; the audit goes to the log."""
    options = plan.options
    files = _split([*options.weights, *plan.solver.message.weights])
    for name in files:
        log.line(places.FINETUNING, f"Finetuning from {name}")
    if plan.resume:
        files.append(_beside(plan.resume.learned_net, options.snapshot or ""))
    values, audit = initial_values(
        slots,
        [read_weights(path) for path in files],
        seed=plan.seed,
        allow_unloaded=options.allow_unloaded,
    )
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    return values


def prepare(options: TrainOptions, log: CaffeLog) -> Run:
    """A run that is ready to train.

    Raises:
        KdnetError: the first stage's faults.
    """
    plan = _plan(options, log)
    device, why = choose_run_device(options, plan.solver)
    log.line(places.OWN, f"Device: {device} ({why}); seed: {plan.seed}")
    shapes, seed = options.input_shapes, plan.seed
    training = compile_training(plan.net, plan.solver, input_shapes=shapes, provider=device.kind)
    evaluations = [
        compile_evaluation(net, live=training.live, input_shapes=shapes, provider=device.kind)
        for net, _ in plan.tests
    ]
    return Run(
        training=training,
        solver=plan.solver,
        device=device,
        values=_values(plan, all_slots(training, evaluations), log),
        sources=open_sources(plan.net, seed=seed, shapes=shapes),
        tests=[
            TestNet(evaluation, open_sources(net, seed=seed, shapes=shapes), count)
            for evaluation, (net, count) in zip(evaluations, plan.tests, strict=True)
        ],
        log=log,
        seed=seed,
        prefix=snapshot_prefix(options, plan.solver, plan.net_path),
        max_iter=plan.solver.message.max_iter,
        resume=plan.resume,
        full_snapshots=options.full_snapshots,
    )


def compile_to_file(
    options: TrainOptions, log: CaffeLog, path: str, provider: str = "cpu"
) -> list[str]:
    """Write the training step as ONNX files that stand alone; their paths.

    Raises:
        KdnetError: the first stage's faults.
    """
    plan = _plan(options, log)
    training = compile_training(
        plan.net, plan.solver, input_shapes=options.input_shapes, provider=provider
    )
    values = _values(plan, training.weights, log)
    rate = learning_rate(plan.solver)
    extra = {
        "net": plan.net.name,
        "seed": plan.seed,
        "solver": write_text(plan.solver.message),
        "rates": [rate(iteration) for iteration in range(min(100, plan.solver.message.max_iter))],
    }
    return write_training(training, values, path, extra)


def _split(names: Sequence[str]) -> list[str]:
    """Caffe's ``--weights a,b`` as two names."""
    return [part for name in names for part in name.split(",") if part]


def _beside(learned_net: str, snapshot: str) -> str:
    """The weights of a snapshot: as named, else beside the .solverstate."""
    if Path(learned_net).exists():
        return learned_net
    return str(Path(snapshot).parent / Path(learned_net).name)
