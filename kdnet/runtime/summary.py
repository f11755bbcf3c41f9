"""``kdnet summarize``: from a file and flags to a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdnet.compile import trace_forward
from kdnet.compile.summary import Summary, outline, summarize
from kdnet.compile.weights import weight_slots
from kdnet.errors import KdnetError
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.runtime.joining import read_named
from kdnet.runtime.loading import targets_of
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import asked_for, check_input_shapes, check_net
from kdnet.runtime.synthetic import with_stand_ins
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import Audit, audit_weights, read_weights


@dataclass(frozen=True)
class SummaryOptions:
    """What ``kdnet summarize`` was asked for."""

    path: str
    phase: int = pb.TRAIN
    weights: tuple[str, ...] = ()
    level: int | None = None
    stages: tuple[str, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A summary, why it has no shapes, and what weight files would fill."""

    summary: Summary
    fault: KdnetError | None = None
    audit: Audit | None = None


def summarize_file(options: SummaryOptions) -> Found:
    """Summarize a net; one whose shapes cannot be worked out is only outlined.

    Raises:
        SchemaError, NetError: the net cannot be read or wired.
        UsageError: not-a-net; unknown-input.
        WeightsError: a weight file cannot be read.
    """
    net = resolved(options.path, options.phase, options.level, options.stages)
    check_input_shapes(options.input_shapes, [net], every_top=True)
    files = [read_weights(path) for path in options.weights]
    try:
        # Only shapes are read, so data that are not there need no more than those.
        (net,) = with_stand_ins([net], options.input_shapes, _silent())
        forward = trace_forward(net, Emitter(), options.input_shapes)
    except KdnetError as fault:
        return Found(outline(net), fault)
    trained = frozenset(t for t, blob in forward.weights.items() if blob.lr_mult != 0)
    slots = weight_slots(forward.weights, trained, frozenset(forward.trace.updates))
    audit = audit_weights(targets_of(slots), files)[1] if files else None
    return Found(summarize(forward), audit=audit)


def _silent() -> CaffeLog:
    return CaffeLog(print_line=lambda _line: None)


def resolved(path: str, phase: int, level: int | None, stages: tuple[str, ...]) -> NetModel:
    """The net of a file, or of a join's description, in a phase.

    Raises:
        SchemaError, NetError: it cannot be read or wired.
        UsageError: not-a-net.
    """
    check_net(path)
    located = read_named(path).located
    stated = NetState(phase).merged(located.message.state)
    state = asked_for(NetState(phase, stated.level, stated.stages), level, stages)
    return resolve_net(located.message, located.source, state)
