"""From a traced graph and wanted outputs to a Program: which outside tensor is which input."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kdnet.compile.forward import Forward
from kdnet.compile.program import LOSS, RATE, NoiseSlot, Program, ScalarSlot, SinkSlot, StateSlot
from kdnet.graph import Emitter, Tensor, outside, to_model

Pair = tuple[Tensor, Tensor]
WATCHED = "watched"


def next_name(tensor: Tensor) -> str:
    """The output that carries a state tensor's following value."""
    return f"next/{tensor.name}"


def loss_outputs(forward: Forward) -> dict[str, Tensor]:
    """The total loss Σ loss_weight · Σ top, if the net has one, and each reported blob."""
    outputs: dict[str, Tensor] = {}
    if forward.losses:
        outputs[LOSS] = _total(forward)
    for report in forward.reports():
        source = str(report.span or forward.source)
        blob = forward.blobs[report.blob]
        outputs[report.output] = _own(forward.g, blob, report.output, source, outputs.values())
    return outputs


def watch(
    forward: Forward, tensors: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Further outputs, named ``watched/<name>``, beside those that there are."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        taken = [*outputs.values(), *found.values()]
        label = f"{WATCHED}/{name}"
        found[label] = _own(forward.g, tensor, label, forward.source, taken)
    return found


def sink_outputs(forward: Forward, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the net's layers write to files, beside the outputs that there are."""
    tensors = {
        f"{sink.layer}/{index}": bottom
        for sink in forward.trace.sinks
        for index, bottom in enumerate(sink.bottoms)
    }
    return watch(forward, tensors, outputs)


def _sinks(forward: Forward, outputs: Mapping[str, Tensor]) -> tuple[SinkSlot, ...]:
    found = []
    for sink in forward.trace.sinks:
        data, label = (f"{WATCHED}/{sink.layer}/{index}" for index in (0, 1))
        if data in outputs:
            shapes = (sink.bottoms[0].shape, sink.bottoms[1].shape)
            found.append(SinkSlot(sink.layer, sink.file, (data, label), shapes, sink.span))
    return tuple(found)


def _total(forward: Forward) -> Tensor:
    g = forward.g
    parts = []
    for loss in forward.losses:
        with g.scope("total", str(loss.layer.position or "")):
            parts.append(g.mul(g.sum_all(loss.top), loss.factor))
    total = parts[0]
    with g.scope("total", forward.source):
        for part in parts[1:]:
            total = g.add(total, part)
    return total


def _own(g: Emitter, tensor: Tensor, label: str, source: str, taken: Iterable[Tensor]) -> Tensor:
    """The tensor, or a copy where it is an input or an output already and so has a name."""
    made = any(tensor in op.outputs for op in g.ops)
    if made and tensor not in taken:
        return tensor
    with g.scope(label, source):
        return g.op("Identity", tensor)


@dataclass
class _Inputs:
    """The outside tensors of a graph, by what they are."""

    data: list[Tensor] = field(default_factory=list)
    noise: list[Tensor] = field(default_factory=list)
    reads: list[Tensor] = field(default_factory=list)
    frozen: list[Tensor] = field(default_factory=list)
    rate: list[Tensor] = field(default_factory=list)
    scalars: list[Tensor] = field(default_factory=list)
    hosted: list[Tensor] = field(default_factory=list)

    def ordered(self, state: Sequence[Tensor]) -> list[Tensor]:
        """All but the constants, in the order of the graph's inputs."""
        fed = [*self.data, *self.noise, *self.hosted]
        return [*fed, *self.reads, *state, *self.rate, *self.scalars]


def _classify(
    forward: Forward, needed: Sequence[Tensor], state: set[Tensor], frozen: frozenset[Tensor]
) -> _Inputs:
    fed = set(forward.trace.data.values())
    noisy = {item.tensor for item in forward.trace.noise}
    scheduled = set(forward.trace.scalars.values())
    found = _Inputs()
    kinds: list[tuple[Container[Tensor], list[Tensor]]] = [
        (fed, found.data),
        (noisy, found.noise),
        (frozen, found.frozen),
        (scheduled, found.scalars),
        (forward.trace.made_on_host, found.hosted),
        (state, []),
    ]
    for tensor in needed:
        if tensor.name == RATE:
            found.rate.append(tensor)
            continue
        next((into for kind, into in kinds if tensor in kind), found.reads).append(tensor)
    return found


def assemble(
    name: str,
    forward: Forward,
    outputs: Mapping[str, Tensor],
    pairs: Sequence[Pair] = (),
    frozen: frozenset[Tensor] = frozenset(),
) -> Program:
    """A program that computes ``outputs`` and, for each pair, the state's following value."""
    g, trace = forward.g, forward.trace
    every = {**{next_name(held): new for held, new in pairs}, **outputs}
    state = [held for held, _ in pairs]
    found = _classify(forward, outside(g.ops, every.values()), set(state), frozen)
    model = to_model(
        g.ops,
        found.ordered(state),
        every,
        name=name,
        initializers=dict.fromkeys(found.frozen),
    )
    keys = {tensor: key for key, tensor in trace.scalars.items()}
    layer_of = {item.tensor: item.layer for item in trace.noise}
    return Program(
        model,
        data={tensor.name: tensor.shape for tensor in found.data},
        hosted={tensor.name: tensor.shape for tensor in found.hosted},
        noise=tuple(NoiseSlot(t.name, layer_of[t], t.shape) for t in found.noise),
        reads=tuple(tensor.name for tensor in found.reads),
        state=tuple(StateSlot(t.name, next_name(t), t.shape) for t in state),
        frozen=tuple(tensor.name for tensor in found.frozen),
        reports=tuple(r for r in forward.reports() if r.output in outputs),
        watched={n: t.shape for n, t in outputs.items() if n.startswith(f"{WATCHED}/")},
        sinks=_sinks(forward, outputs),
        labels=tuple(check for check in trace.labels if check.tensor in found.data),
        scalars=tuple(ScalarSlot(t.name, *keys[t]) for t in found.scalars),
        has_rate=bool(found.rate),
        has_loss=LOSS in outputs,
        loss_span=next((loss.layer.position for loss in forward.losses), None),
    )
