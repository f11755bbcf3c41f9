"""What a net is made of and what it takes: ``kdnet summarize`` in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kdnet.autodiff import gradients
from kdnet.compile.cost import cost_of, fed_tensors
from kdnet.compile.forward import Forward
from kdnet.compile.heads import teaching_pairs
from kdnet.compile.liveness import bytes_of, kept_bytes, peak_bytes
from kdnet.compile.parts import Part, parts_of
from kdnet.compile.receptive import View, receptive_fields
from kdnet.errors import GraphError
from kdnet.graph import Tensor
from kdnet.graph.serialize import needed_ops
from kdnet.net import LayerModel, NetModel
from kdnet.schema import kdnet_pb2 as pb

Shape = tuple[int, ...]


@dataclass(frozen=True)
class WeightRow:
    """A weight blob of a layer; ``owner`` is the layer that holds it, where it is shared."""

    shape: Shape
    lr_mult: float
    decay_mult: float
    role: str
    owner: str = ""


@dataclass(frozen=True)
class LayerRow:
    """A layer, with the costs of a whole batch; what could not be worked out is None.

    Attributes:
        layer: the layer as the prototxt has it.
        part: "data", "frozen" or "trained".
        shapes: of the tops.
        weights: its blobs; ``parameters`` counts those that it holds itself.
        activation_bytes: of every tensor that its ops make.
        view: what a unit of the first top sees of the data.
    """

    layer: LayerModel
    part: str = ""
    shapes: tuple[Shape, ...] | None = None
    weights: tuple[WeightRow, ...] = ()
    parameters: int = 0
    macs: int = 0
    flops: int = 0
    activation_bytes: int = 0
    view: View | None = None


@dataclass(frozen=True)
class Total:
    """A part of the net: its layers that are not data, added up."""

    name: str
    layers: int
    parameters: int
    macs: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes of a batch: see :mod:`kdnet.compile.liveness`; training's are None in TEST phase.

    Attributes:
        weights: of all weight blobs.
        peak: the most that is alive in a forward pass.
        kept: what a training step keeps of the forward pass for the backward pass.
        step_peak: the most that is alive in both.
        gradients: of all trained weights; a solver's history takes as much for each of its slots.
    """

    weights: int
    peak: int
    kept: int | None = None
    step_peak: int | None = None
    gradients: int | None = None


@dataclass(frozen=True)
class Summary:
    """A net in one phase; without shapes, only what the prototxt says."""

    net: NetModel
    rows: tuple[LayerRow, ...]
    batch: int | None = None
    memory: Memory | None = None
    totals: tuple[Total, ...] = field(default=())


def outline(net: NetModel) -> Summary:
    """The summary of a net whose shapes are not known."""
    return Summary(net, tuple(LayerRow(layer, weights=_stated(layer)) for layer in net.layers))


def summarize(forward: Forward) -> Summary:
    """The summary of a traced net; appends its gradients to the emitter."""
    net = forward.net
    costs = {cost.layer: cost for cost in cost_of(forward).layers}
    views = receptive_fields(forward)
    weights = _weights(forward)
    parts = parts_of(forward)
    rows = []
    for index, layer in enumerate(net.layers):
        # Layers without weights may share a name: the first of them stands for all.
        cost = costs.pop(layer.name, None)
        rows.append(
            LayerRow(
                layer,
                _word(parts[index]),
                tuple(tensor.shape for tensor in forward.tops[index]),
                tuple(weights.get(layer.name, ())),
                cost.parameters if cost else 0,
                cost.macs if cost else 0,
                cost.flops if cost else 0,
                cost.activation_bytes if cost else 0,
                views[index],
            )
        )
    totals = _totals(rows, taught=bool(teaching_pairs(forward)))
    return Summary(net, tuple(rows), _batch(forward), _memory(forward), totals)


def _stated(layer: LayerModel) -> tuple[WeightRow, ...]:
    """What the prototxt says of a layer's weights."""
    specs = [layer.param(index) for index in range(len(layer.message.param))]
    return tuple(WeightRow((), spec.lr_mult, spec.decay_mult, "", spec.name) for spec in specs)


def _word(part: Part) -> str:
    return {Part.FROZEN: "frozen", Part.MOVING: "trained"}.get(part, "data")


def _weights(forward: Forward) -> dict[str, list[WeightRow]]:
    """Every layer's blobs in order, those that it shares among them."""
    found: dict[str, dict[int, WeightRow]] = {}
    for blob in forward.weights.values():
        state = blob.weight.state
        role = "state" if state else "trained" if blob.lr_mult else "frozen"
        for (layer, index), shape in blob.users.items():
            owner = "" if layer == blob.layer.name else blob.layer.name
            row = WeightRow(shape, blob.lr_mult, blob.decay_mult, role, owner)
            found.setdefault(layer, {})[index] = row
    return {layer: [rows[i] for i in sorted(rows)] for layer, rows in found.items()}


def _batch(forward: Forward) -> int | None:
    """The items of a batch: the first extent of what is fed, where all agree."""
    extents = {tensor.shape[0] for tensor in forward.trace.data.values() if tensor.rank}
    return extents.pop() if len(extents) == 1 else None


def _totals(rows: Sequence[LayerRow], *, taught: bool) -> tuple[Total, ...]:
    """By part; each teacher and student apart where layers with weights have scopes."""
    plain = {"frozen": "teacher", "trained": "student"} if taught else {}
    weighted = [row for row in rows if row.parameters]
    scoped = len({row.part for row in weighted}) > 1 and all(
        "/" in row.layer.name for row in weighted
    )
    groups: dict[str, list[LayerRow]] = {}
    for row in rows:
        if row.part == "data":
            continue
        named = scoped and "/" in row.layer.name
        scope = row.layer.name.partition("/")[0] if named else plain.get(row.part)
        groups.setdefault(f"{scope} ({row.part})" if scope else row.part, []).append(row)
    return tuple(_total(name, found) for name, found in groups.items())


def _total(name: str, rows: Iterable[LayerRow]) -> Total:
    columns = [(1, r.parameters, r.macs, r.flops, r.activation_bytes) for r in rows]
    return Total(name, *(sum(column) for column in zip(*columns, strict=True)))


def _memory(forward: Forward) -> Memory:
    fed = fed_tensors(forward)
    outputs = [forward.blobs[name] for name in forward.net.outputs]
    first = needed_ops(forward.g.ops, [*outputs, *(loss.top for loss in forward.losses)])
    weights = sum(map(bytes_of, forward.weights))
    peak = peak_bytes(first, fed, outputs)
    slopes = _slopes(forward) if forward.net.phase == pb.TRAIN else []
    if not slopes:
        return Memory(weights, peak)
    ends = [*slopes, *forward.trace.updates.values(), *(loss.top for loss in forward.losses)]
    every = needed_ops(forward.g.ops, ends)
    before = set(first)
    second = [op for op in every if op not in before]
    kept = kept_bytes(first, second, fed)
    return Memory(weights, peak, kept, peak_bytes(every, fed, ends), sum(map(bytes_of, slopes)))


def _slopes(forward: Forward) -> list[Tensor]:
    """The gradients of all trained weights; none for a net that cannot be trained."""
    g = forward.g
    wanted = [tensor for tensor, blob in forward.weights.items() if blob.lr_mult != 0]
    with g.scope("grad", forward.source):
        seeds = [
            (loss.top, g.expand(g.like(loss.factor, loss.top), loss.top.shape))
            for loss in forward.losses
        ]
        try:
            return list(gradients(g, seeds, wanted).values())
        except GraphError:
            return []
