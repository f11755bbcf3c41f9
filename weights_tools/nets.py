"""Net definitions, as far as weight files need them: which layers take which shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdnet.compile.forward import Forward
    from kdnet.schema import Located
    from kdnet.schema import kdnet_pb2 as pb
    from kdnet.weights import Target

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NetChoice:
    """A net, or the description of a join, and the state in which it is meant."""

    path: str
    phase: str = "TRAIN"
    level: int | None = None
    stages: tuple[str, ...] = ()
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)


def read_definition(path: str) -> Located[pb.NetParameter]:
    """The net that a prototxt defines, or describes as a join of others.

    Raises:
        KdnetError: as ``kdnet train``; ``not-a-net`` for a solver.
    """
    from kdnet.runtime.joining import is_join, read_join
    from kdnet.runtime.plan import check_net
    from kdnet.schema import read_net

    check_net(path)
    return read_join(path).net if is_join(path) else read_net(path)


def traced(choice: NetChoice, phase: str | None = None) -> Forward:
    """The net with the shapes of all its blobs and weights; its data is not read.

    Raises:
        KdnetError: the faults of the definition, ``missing-item-shape`` and its like where the
            shape of the data is nowhere stated.
    """
    from kdnet.compile import trace_forward
    from kdnet.graph import Emitter
    from kdnet.net import NetState, resolve_net
    from kdnet.runtime.plan import asked_for, check_input_shapes
    from kdnet.schema import kdnet_pb2 as pb

    located = read_definition(choice.path)
    state = NetState(pb.Phase.Value(phase or choice.phase)).merged(located.message.state)
    state = asked_for(state, choice.level, choice.stages)
    net = resolve_net(located.message, located.source, state)
    check_input_shapes(choice.input_shapes, [net])
    return trace_forward(net, Emitter(), choice.input_shapes)


def net_targets(choice: NetChoice) -> list[Target]:
    """The layers of a net that take weights, in its order.

    Raises:
        KdnetError: as :func:`traced`.
    """
    from kdnet.compile.weights import weight_slots
    from kdnet.runtime.loading import targets_of

    forward = traced(choice)
    updated = frozenset(forward.trace.updates)
    return targets_of(weight_slots(forward.weights, frozenset(), updated))
