"""Which nets an export is about: the students, their teachers, and the weights of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from kdnet.compile.deploy.branches import Branch, choose_heads, find_heads
from kdnet.compile.deploy.making import Deploy, make_deploy
from kdnet.compile.forward import Forward, trace_forward
from kdnet.errors import DataError, Diagnostic, KdnetError, LayerError, NetError, WeightsError
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.net.rename import Mapping as Rules
from kdnet.net.rename import parse_rules
from kdnet.runtime import log as places
from kdnet.runtime.joining import read_named
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import asked_for, check_input_shapes
from kdnet.schema import Located
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import WeightFile, read_weights

Array = NDArray[Any]


@dataclass(frozen=True)
class ExportOptions:
    """What ``kdnet export`` was asked for.

    ``iterations`` None means one pass of the TEST data if it is there, at most 50 batches; 0 none.
    """

    path: str
    output: str
    weights: tuple[str, ...] = ()
    teacher_weights: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rename: tuple[str, ...] = ()
    classes: str | None = None
    softmax: bool = False
    preprocess: bool = False
    batch: int = 1
    runs: int = 30
    iterations: int | None = None
    device: str = "auto"
    level: int | None = None
    stages: tuple[str, ...] = ()
    allow_unloaded: bool = False
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One net, with its weights by the names of the trained net.

    ``loaded`` tells whether every weight came from a file, so that its accuracy means something.
    """

    deploy: Deploy
    values: Mapping[str, Array]
    loaded: bool = True

    @property
    def kind(self) -> str:
        """Student or teacher."""
        return "student" if self.deploy.head.trained else "teacher"


@dataclass(frozen=True)
class ExportPlan:
    """The TEST net, the nets to write, the teachers to compare with, and the rename rules."""

    test: NetModel
    students: tuple[Part, ...]
    teachers: tuple[Part, ...]
    rules: Rules | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Teachers first."""
        return (*self.teachers, *self.students)


def make_export_plan(options: ExportOptions, log: CaffeLog) -> ExportPlan:
    """Read the net, find its heads, and load the weights of each.

    Raises:
        KdnetError: the first stage's faults. Those of a teacher are warnings.
    """
    rules = parse_rules(options.rename) if options.rename else None
    named = read_named(options.path)
    located = named.located
    test = _resolved(located, pb.TEST, options)
    tested = trace_forward(test, Emitter(), options.input_shapes)
    train = _trained(located, tested, options, log)
    check_input_shapes(options.input_shapes, [test, train.net])
    heads = find_heads(tested, train)
    chosen = choose_heads(heads, options.heads, tested, train)
    deploys = _deploys(options, test, chosen, rules)
    others = [head for head in heads if not head.trained and head not in chosen]
    paths = dict.fromkeys((*options.weights, *options.teacher_weights))
    files = [*named.files, *(read_weights(path) for path in paths)]
    own = [*named.files, *(file for file in files if file.path in options.weights)]
    students = tuple(
        Part(deploy, _student_values(deploy, own, options, log)) for deploy in deploys
    )
    return ExportPlan(test, students, _teachers(options, test, others, files, log), rules)


def _resolved(located: Located[pb.NetParameter], phase: int, options: ExportOptions) -> NetModel:
    state = NetState(phase).merged(located.message.state)
    state = asked_for(state, options.level, options.stages)
    return resolve_net(located.message, located.source, state)


def _trained(
    located: Located[pb.NetParameter], tested: Forward, options: ExportOptions, log: CaffeLog
) -> Forward:
    """The TRAIN net traced, or the TEST net where that cannot be: its data may not be here."""
    try:
        train = _resolved(located, pb.TRAIN, options)
        return trace_forward(train, Emitter(), options.input_shapes)
    except (DataError, LayerError, NetError) as error:
        warn(log, "losses of the TRAIN net do not count", error)
    return tested


def _deploys(
    options: ExportOptions, test: NetModel, heads: Sequence[Branch], rules: Rules | None
) -> list[Deploy]:
    deploys = [
        make_deploy(
            test,
            head,
            input_shapes=options.input_shapes,
            mapping=rules,
            softmax=options.softmax,
        )
        for head in heads
    ]
    if rules is not None:
        names = [layer.name for deploy in deploys for layer in deploy.trained.net.layers]
        faults = rules.unmatched(names, "the student")
        if faults:
            raise NetError(*faults)
    return deploys


def _student_values(
    deploy: Deploy, files: Sequence[WeightFile], options: ExportOptions, log: CaffeLog
) -> dict[str, Array]:
    """Every weight from a file: a student of fillers looks like a trained one.

    Raises:
        WeightsError: unloaded-student, and what loading finds.
    """
    allowed, slots = options.allow_unloaded, deploy.slots
    values, audit = initial_values(slots, files, seed=0, allow_unloaded=allowed)
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    spans = {slot.layer: slot.span for slot in slots}
    hints = (
        "name the trained snapshot with --weights: layers are found by name",
        "--allow-unloaded exports what the fillers give",
    )
    given = {file.path for file in files}
    faults = []
    for row in audit.rows:
        # A file that a layer brings itself holds what it was before the training.
        if row.file not in given and not row.frozen:
            text = f'layer "{row.layer}" of the student is in no weight file'
            span = spans.get(row.layer)
            faults.append(Diagnostic("unloaded-student", text, span, help=hints))
    if faults and not allowed:
        raise WeightsError(*faults)
    return values


def _teachers(
    options: ExportOptions,
    test: NetModel,
    heads: Sequence[Branch],
    files: Sequence[WeightFile],
    log: CaffeLog,
) -> tuple[Part, ...]:
    """The teachers as far as they can be had: their faults spoil no export."""
    found = []
    for head in heads:
        try:
            deploy = make_deploy(test, head, input_shapes=options.input_shapes)
            found.append(_teacher(deploy, files, log))
        except (LayerError, NetError, WeightsError) as error:
            warn(log, f'teacher "{head.blob}" is not in the table', error)
    return tuple(found)


def _teacher(deploy: Deploy, files: Sequence[WeightFile], log: CaffeLog) -> Part:
    slots = deploy.slots
    try:
        values, _ = initial_values(slots, files, seed=0)
    except WeightsError as error:
        warn(log, f'the accuracy of teacher "{deploy.head.blob}" is not known', error)
        values, _ = initial_values(slots, [], seed=0, allow_unloaded=True)
        return Part(deploy, values, loaded=False)
    return Part(deploy, values)


def warn(log: CaffeLog, text: str, error: KdnetError) -> None:
    """Log the first fault of an error as a warning."""
    first = error.diagnostics[0]
    whole = f"{text}: {first.message}"
    log.diagnostic(Diagnostic(first.code, whole, first.span, severity="warning"))
