"""What the files and flags of a run say, checked before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdnet.data.teacher_cache import CacheOptions
from kdnet.errors import NetError, SchemaError, UsageError, did_you_mean, fail
from kdnet.net import (
    NetModel,
    NetState,
    SolverModel,
    find_path,
    load_solver,
    resolve_net,
    solver_beside,
    solver_for_net,
    test_nets_of,
    train_net_of,
)
from kdnet.net.join import Member
from kdnet.runtime import log as places
from kdnet.runtime.joining import (
    about,
    is_join,
    read_description,
    read_join,
    read_renamed,
    solver_of_join,
    weight_sources,
)
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.solver_states import Resume, load
from kdnet.runtime.synthetic import with_stand_ins
from kdnet.schema import Located, read_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import WeightFile

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
    level: int | None = None
    stages: tuple[str, ...] = ()
    allow_unloaded: bool = False
    full_snapshots: bool = False
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    cache: CacheOptions | None = None
    synthetic_data: bool = False


@dataclass(frozen=True)
class Plan:
    """A train net, its test nets with their batches, and the solver that drives them."""

    options: TrainOptions
    solver: SolverModel
    net_path: str | None
    net: NetModel
    tests: Sequence[tuple[NetModel, int]]
    seed: int
    resume: Resume | None
    joined_weights: tuple[tuple[str, Member], ...] = ()

    @property
    def weight_files(self) -> list[str]:
        """``--weights``, or else the solver's own, which may lie beside the solver."""
        if self.options.weights:
            return _split(self.options.weights)
        named = _split(self.solver.message.weights)
        return [find_path(name, self.solver.path) for name in named]

    def renamed_weights(self) -> list[WeightFile]:
        """The files that a join's description names, under the names of the joined net."""
        return [read_renamed(path, member) for path, member in self.joined_weights]


def make_plan(options: TrainOptions, log: CaffeLog) -> Plan:
    """Read and resolve everything.

    Raises:
        KdnetError: the first stage's faults.
    """
    solver, net_path, told = find_solver(options)
    if told:
        log.line(places.OWN, told)
    joined = read_join(net_path) if net_path and is_join(net_path) else None
    for line in about(joined) if joined else ():
        log.line(places.OWN, line)
    located = joined.net if joined else None
    if options.max_iter is not None:
        solver.message.max_iter = options.max_iter
    resume = load(options.snapshot) if options.snapshot else None
    net = train_net(solver, net_path, options, located)
    tests = test_nets(solver, net_path, options, located)
    synthetic = options.synthetic_data
    nets = [net, *(net for net, _ in tests)]
    check_input_shapes(options.input_shapes, nets, every_top=synthetic)
    if synthetic:
        net, *made = with_stand_ins(nets, options.input_shapes, log)
        tests = [(other, count) for other, (_, count) in zip(made, tests, strict=True)]
    seed = resolve_seed(options, solver, resume)
    weights = weight_sources(joined, net_path) if joined and net_path else []
    return Plan(options, solver, net_path, net, tests, seed, resume, tuple(weights))


def is_solver(path: str) -> bool:
    """Whether a prototxt is a solver rather than a net or a join: by what parses.

    Raises:
        SchemaError: it is neither; the faults are those of the kind that it is nearer to.
    """
    try:
        return bool(load_solver(path).message.ListFields())
    except SchemaError as error:
        faults = [error]
    for read in (read_description, read_net):
        try:
            read(path)
        except SchemaError as error:
            faults.insert(0, error)
        else:
            return False
    raise faults[0] if _has_layers(faults[-1]) else min(faults, key=_distance)


def check_net(path: str) -> None:
    """Refuse a solver where a net is wanted.

    Raises:
        UsageError: not-a-net.
    """
    if is_solver(path):
        text = f'"{path}" is a solver; a net is wanted here'
        fail(UsageError, "not-a-net", text, help=("name the net that the solver names",))


def _has_layers(error: SchemaError) -> bool:
    """Whether what is wrong with a file as a solver is, among others, that it has layers."""
    words = ('no field "layer"', 'no field "layers"')
    return any(found.message.endswith(words) for found in error.diagnostics)


def _distance(error: SchemaError) -> tuple[int, int]:
    """Fewer faults are nearer; with as many, those for which a known name was found."""
    return len(error.diagnostics), -sum(bool(found.help) for found in error.diagnostics)


def find_solver(options: TrainOptions) -> tuple[SolverModel, str | None, str]:
    """The solver, the net file where it was named on its own, and a sentence on the choice."""
    if is_solver(options.path):
        if options.solver:
            text = f'"{options.path}" is a solver already; --solver names another'
            fail(UsageError, "two-solvers", text)
        solver = load_solver(options.path)
        named = find_path(solver.message.net, solver.path)
        return solver, named if is_join(named) else None, ""
    if options.solver:
        if not is_solver(options.solver):
            text = f'--solver names "{options.solver}", which is no solver'
            fail(UsageError, "not-a-solver", text)
        return load_solver(options.solver), options.path, ""
    if is_join(options.path):
        borrowed, told = solver_of_join(options.path)
        if borrowed:
            return borrowed, options.path, told
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


def train_net(
    solver: SolverModel,
    net_path: str | None,
    options: TrainOptions,
    joined: Located[pb.NetParameter] | None,
) -> NetModel:
    """The net in TRAIN phase; ``joined`` stands for what ``net_path`` describes."""
    located = joined or (read_net(net_path) if net_path else train_net_of(solver))
    state = NetState(pb.TRAIN).merged(located.message.state).merged(solver.message.train_state)
    state = asked_for(state, options.level, options.stages)
    return resolve_net(located.message, located.source, state)


def asked_for(state: NetState, level: int | None, stages: tuple[str, ...]) -> NetState:
    """What the files say, with the command line's level, if any, and its stages."""
    return NetState(state.phase, state.level if level is None else level, state.stages + stages)


def test_nets(
    solver: SolverModel,
    net_path: str | None,
    options: TrainOptions,
    joined: Located[pb.NetParameter] | None,
) -> list[tuple[NetModel, int]]:
    """Each test net with its number of batches; ``joined`` as for :func:`train_net`.

    A net of no batches (test_iter: 0) is left out, and need not have data for the TEST phase.

    Raises:
        NetError: test-iter-count, test-state-count, missing-solver-field.
    """
    message = solver.message
    located: Sequence[Located[pb.NetParameter]]
    if net_path and not (message.test_net or message.test_net_param):
        located = [joined or read_net(net_path)] * len(message.test_iter)
    else:
        located = test_nets_of(solver)
    _check_tests(solver, len(located))
    found = []
    for index, net in enumerate(located):
        if not message.test_iter[index]:
            continue
        state = NetState(pb.TEST).merged(net.message.state)
        if index < len(message.test_state):
            state = state.merged(message.test_state[index])
        state = asked_for(state, options.level, options.stages)
        found.append((resolve_net(net.message, net.source, state), message.test_iter[index]))
    return found


def _check_tests(solver: SolverModel, nets: int) -> None:
    """Caffe's rules: what a solver must say of its test nets."""
    message = solver.message
    if nets != len(message.test_iter):
        text = f"{len(message.test_iter)} test_iter for {nets} test nets"
        fail(NetError, "test-iter-count", text, span=solver.span("test_iter", 0))
    if len(message.test_state) not in (0, nets):
        text = f"{len(message.test_state)} test_state for {nets} test nets"
        fail(NetError, "test-state-count", text, span=solver.span("test_state", 0))
    for index, batches in enumerate(message.test_iter):
        if batches < 0:
            text = f"test_iter must not be below 0; it is {batches}"
            fail(NetError, "missing-solver-field", text, span=solver.span("test_iter", index))
    if any(message.test_iter) and message.test_interval < 1:
        text = "test_iter is given, but no test_interval above 0: the net would never be tested"
        fail(NetError, "missing-solver-field", text, span=solver.span("test_iter", 0))


def check_input_shapes(
    shapes: Mapping[str, Shape], nets: Sequence[NetModel], *, every_top: bool = False
) -> None:
    """Refuse an ``--input-shape`` of a top that no layer of any of the nets begins with.

    ``every_top`` accepts the other tops of data layers too, for which data are made up.

    Raises:
        UsageError: unknown-input.
    """
    tops = {layer.tops[0] for net in nets for layer in net.layers if layer.tops}
    sources = [layer for net in nets for layer in net.layers if not layer.bottoms]
    inputs = {top for layer in sources for top in layer.tops[: None if every_top else 1]}
    for name in shapes:
        if name not in inputs:
            what = "is no data layer's first top" if name in tops else "is no top of the net"
            text = f'--input-shape names "{name}", which {what}'
            fail(UsageError, "unknown-input", text, help=did_you_mean(name, inputs))


def resolve_seed(options: TrainOptions, solver: SolverModel, resume: Resume | None) -> int:
    """``--seed``, else the resumed run's, else random_seed, else 0: a run always repeats."""
    if options.seed is not None:
        return options.seed
    if resume is not None and resume.seed is not None:
        return resume.seed
    return max(0, solver.message.random_seed)


def snapshot_prefix(plan: Plan) -> str:
    """Where snapshots go: snapshot_prefix, moved into ``--out`` when that is given."""
    message, out = plan.solver.message, plan.options.out
    stem = Path(plan.net_path or message.net or plan.solver.path or "net").stem
    given = message.snapshot_prefix
    return str(Path(out) / (Path(given).name or stem)) if out else given or stem


def _split(names: Sequence[str]) -> list[str]:
    """Caffe's ``--weights a,b`` as two names."""
    return [part.strip() for name in names for part in name.split(",") if part.strip()]
