"""Cuts the frozen part out of a net: a program that makes its outputs, and a net that reads them.

    data ──┬── frozen ──┬── moving          data ──┬──────────── moving
           │            │                ⇒         │    Input ──┘
           └────────────┘ (frontier)               └─ ...

The frontier is every blob of the frozen part that the rest of the net reads or reports. In the
remaining net an Input layer stands for it, which whoever runs the program fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdnet.compile.assemble import assemble
from kdnet.compile.evaluation import Evaluation
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.parts import Part, parts_of
from kdnet.compile.training import Training
from kdnet.compile.weights import weight_slots
from kdnet.errors import Diagnostic, LayerError, Note, fail
from kdnet.graph import Emitter, Tensor
from kdnet.layers import is_data, layer_class, roles_of
from kdnet.net import LayerModel, NetModel, feeders
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb

Shape = tuple[int, ...]

FRONTIER_LAYER = "frozen (outputs)"


@dataclass(frozen=True)
class Reader:
    """A layer that reads a frontier blob, and what the blob is to it ("" if it does not say)."""

    layer: LayerModel
    role: str


@dataclass(frozen=True)
class Frontier:
    """A blob on the cut: the frozen layer that makes it, and who reads it."""

    blob: str
    shape: Shape
    maker: LayerModel
    readers: tuple[Reader, ...]


@dataclass(frozen=True)
class Cut:
    """A net in two.

    Attributes:
        net: the net as it was.
        frozen: the program of the frozen part; its reports are the frontier, in order.
        rest: the net without the frozen part, with an Input layer for the frontier.
        data: the one data layer that the frozen part reads.
        frontier: the blobs on the cut.
        cached: the layers that the rest is spared.
        constants: what the frozen graph holds beside its weights, if it is large.
        held_back: which frozen weights are not in the frozen part, and why.
        forward: the whole net, traced.
    """

    net: NetModel
    frozen: Evaluation
    rest: NetModel
    data: LayerModel
    frontier: tuple[Frontier, ...]
    cached: tuple[LayerModel, ...]
    constants: tuple[Tensor, ...]
    held_back: tuple[Note, ...]
    forward: Forward

    def joined(self, training: Training) -> tuple[Training, Mapping[str, str]]:
        """The rest's training with all of the net's weights, and names that differ in the parts.

        A frozen weight that layers on both sides share belongs to the whole net's owner, under
        whose name files load and snapshots keep it; the mapping gives that name for the part's.
        """
        trained = {slot.name for slot in training.weights if slot.role == "trained"}
        weights = weight_slots(
            self.forward.weights,
            frozenset(t for t in self.forward.weights if t.name in trained),
            frozenset(self.forward.trace.updates),
        )
        owner = {user: slot.name for slot in weights for user in slot.users}
        parts = (*training.weights, *self.frozen.weights)
        names = {slot.name: owner[slot.users[0]] for slot in parts}
        return replace(training, net=self.net, weights=weights), names


def cut_frozen(
    net: NetModel,
    *,
    stay: frozenset[str] = frozenset(),
    input_shapes: Mapping[str, Shape] | None = None,
    provider: str = "cpu",
) -> Cut:
    """Cut the frozen part of a TRAIN net off.

    Frozen losses, metrics and whatever else has no batch axis stay with the rest, since they
    speak of a batch and not of a record.

    Args:
        net: the net.
        stay: names of layers that stay too, such as those that a schedule moves.
        input_shapes: shapes of data tops that win over what the net says.
        provider: "cpu" or "cuda".

    Raises:
        LayerError: the net's faults; nothing-frozen, frozen-two-sources, frozen-noise.
    """
    unique = _unique_names(net)
    forward = trace_forward(unique, Emitter(provider=provider), input_shapes)
    cut, frontier = _frontier(forward, stay)
    if not frontier:
        text = f'net "{net.name}" has no frozen part whose outputs could be kept'
        hint = ("a teacher is frozen when lr_mult is 0 for all its weights and it is in TEST",)
        span = net.source.span(())
        raise LayerError(Diagnostic("nothing-frozen", text, span, _held_back(forward), hint))
    kept = _needed(unique, {_maker(unique, blob) for blob in frontier})
    data = one_source(unique, kept, "the frozen part")
    blobs = tuple(_described(unique, forward, cut, blob) for blob in frontier)
    part, whole = compile_blobs(
        replace(unique, layers=tuple(unique.layers[i] for i in kept)),
        tuple(found.blob for found in blobs),
        input_shapes=input_shapes,
        provider=provider,
    )
    cached = tuple(unique.layers[i] for i in sorted(cut))
    rest = _rest(unique, cut, blobs)
    held_back = _held_back(forward)
    constants = _large_constants(whole)
    return Cut(net, part, rest, data, blobs, cached, constants, held_back, forward)


def _unique_names(net: NetModel) -> NetModel:
    """The net with a name of its own for each blob that a layer makes anew, in place or not.

    What a data layer makes and what a blob is at the end keep their name.
    """
    fed = {top for layer in net.layers if is_data(layer) for top in layer.tops}
    last = {top: index for index, layer in enumerate(net.layers) for top in layer.tops}
    taken, current = set(last), dict[str, str]()
    layers = []
    for index, layer in enumerate(net.layers):
        bottoms = tuple(current[bottom] for bottom in layer.bottoms)
        for top in layer.tops:
            keeps = is_data(layer) or (last[top] == index and top not in fed)
            current[top] = top if keeps else _free(f"{top}@{layer.name}", taken)
        tops = tuple(current[top] for top in layer.tops)
        layers.append(replace(layer, bottoms=bottoms, tops=tops))
    return replace(net, layers=tuple(layers), outputs=tuple(current[blob] for blob in net.outputs))


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "'"
    taken.add(name)
    return name


def _frontier(forward: Forward, stay: frozenset[str]) -> tuple[set[int], list[str]]:
    """The layers that can be cut off, and the blobs that are then read across the cut."""
    net = forward.net
    parts, made_by = parts_of(forward), feeders(net)
    frozen = {index for index, part in enumerate(parts) if part is Part.FROZEN}
    batch = {i: _batch(forward, i, made_by) for i in frozen}
    cut = {i for i in frozen if not (net.layers[i].name in stay or _sums_up(net.layers[i]))}
    while True:
        staying, found = frozen - cut, _read_across(net, cut)
        out = {_maker(net, blob) for blob in found if not _per_record(forward, blob, batch)}
        out |= {i for i in cut if staying.intersection(made_by[i])}
        if not out:
            return cut, found
        cut -= out


def _held_back(forward: Forward) -> tuple[Note, ...]:
    """The first layer with frozen weights below one whose statistics move, if there is one."""
    net, table = forward.net, forward.weights
    own = {user: blob for blob in table.values() if not blob.weight.state for user in blob.users}
    still = {name for (name, _), blob in own.items() if blob.lr_mult == 0}
    still -= {name for (name, _), blob in own.items() if blob.lr_mult != 0}
    updating = {table[tensor].layer.name for tensor in forward.trace.updates}
    for index, layer in enumerate(net.layers):
        above = [net.layers[i] for i in _needed(net, {index})] if layer.name in still else []
        for cause in above:
            if cause.name in updating:
                who = f'layer "{cause.name}" ({cause.type}) updates its statistics'
                return (Note(f'{who}, so layer "{layer.name}" is not kept', cause.position),)
    return ()


def _sums_up(layer: LayerModel) -> bool:
    """Whether a layer speaks of a whole batch by its kind."""
    cls = layer_class(layer)
    return cls.is_loss or cls.is_metric


def _per_record(forward: Forward, blob: str, batch: Mapping[int, int]) -> bool:
    tensor = forward.blobs[blob]
    size = batch.get(_maker(forward.net, blob), 0)
    filtered = blob in forward.trace.kept
    return bool(tensor.shape) and tensor.shape[0] == size and tensor.is_float and not filtered


def _batch(forward: Forward, index: int, made_by: tuple[tuple[int, ...], ...]) -> int:
    """The batch size of the data that a layer goes back to; 0 where there is none."""
    net, waiting, seen = forward.net, [index], set[int]()
    while waiting:
        at = waiting.pop()
        if is_data(net.layers[at]):
            return forward.blobs[net.layers[at].tops[0]].shape[0]
        seen.add(at)
        waiting += [i for i in made_by[at] if i not in seen]
    return 0


def _read_across(net: NetModel, cut: set[int]) -> list[str]:
    """Blobs that the cut layers make and others, or the log, read; in the order of the net."""
    made = [top for index in sorted(cut) for top in net.layers[index].tops]
    read = {b for i, layer in enumerate(net.layers) if i not in cut for b in layer.bottoms}
    read.update(net.outputs)
    return [top for top in made if top in read]


def _maker(net: NetModel, blob: str) -> int:
    return next(i for i, layer in enumerate(net.layers) if blob in layer.tops)


def _needed(net: NetModel, makers: set[int]) -> list[int]:
    made_by, found, waiting = feeders(net), set[int](), list(makers)
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += made_by[index]
    return sorted(found)


def one_source(net: NetModel, kept: Sequence[int], who: str) -> LayerModel:
    """The only data layer among the layers ``kept``, which ``who`` in a message needs.

    Raises:
        LayerError: frozen-two-sources.
    """
    found = [net.layers[i] for i in kept if is_data(net.layers[i])]
    if len(found) == 1:
        return found[0]
    names = " and ".join(f'"{layer.name}"' for layer in found) or "no data layer"
    text = f"{who} reads {names}; its outputs belong to records of one data layer"
    notes = tuple(Note(f'layer "{layer.name}"', layer.position) for layer in found[1:])
    span = found[0].position if found else net.source.span(())
    raise LayerError(Diagnostic("frozen-two-sources", text, span, notes))


def _described(net: NetModel, forward: Forward, cut: set[int], blob: str) -> Frontier:
    readers = []
    for index, layer in enumerate(net.layers):
        for place, bottom in enumerate(layer.bottoms):
            if bottom == blob and index not in cut:
                readers.append(Reader(layer, roles_of(layer)[place]))
    maker = net.layers[_maker(net, blob)]
    return Frontier(blob, forward.blobs[blob].shape, maker, tuple(readers))


def compile_blobs(
    net: NetModel,
    blobs: tuple[str, ...],
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    provider: str = "cpu",
) -> tuple[Evaluation, Forward]:
    """A program whose reports are ``blobs``, with all weights as constants, and the traced net.

    Raises:
        LayerError: the net's faults; frozen-noise, since one record must have one output.
    """
    part = replace(net, outputs=blobs)
    forward = trace_forward(part, Emitter(provider=provider), input_shapes)
    for noise in forward.trace.noise:
        layer = next(found for found in part.layers if found.name == noise.layer)
        text = f'layer "{layer.name}" ({layer.type}) draws new noise for every batch'
        hint = ("give it phase: TEST, as the layers of a teacher have",)
        fail(LayerError, "frozen-noise", text, span=layer.position, help=hint)
    reports = {report.output: forward.blobs[report.blob] for report in forward.reports()}
    program = assemble("frozen", forward, reports, (), frozenset(forward.weights))
    slots = weight_slots(forward.weights, frozenset(), frozenset())
    weights = tuple(slot for slot in slots if slot.name in program.frozen)
    return Evaluation(part, weights, program), forward


def _large_constants(forward: Forward) -> tuple[Tensor, ...]:
    """What the graph holds beside its weights, as that of an embedded model does."""
    read = [t for op in forward.g.ops for t in op.inputs if t is not None]
    return tuple(dict.fromkeys(t for t in read if t.value is not None and t.value.size > 64))


def _rest(net: NetModel, cut: set[int], frontier: tuple[Frontier, ...]) -> NetModel:
    """The layers that stay, after an Input layer that stands for the frontier."""
    message = pb.LayerParameter(name=FRONTIER_LAYER, type="Input")
    for found in frontier:
        message.top.append(found.blob)
        message.input_param.shape.add().dim.extend(found.shape)
    tops = tuple(found.blob for found in frontier)
    first = LayerModel(
        FRONTIER_LAYER,
        "Input",
        (),
        tops,
        net.phase,
        message,
        SourceMap(frontier[0].maker.position),
    )
    stay = (layer for index, layer in enumerate(net.layers) if index not in cut)
    return replace(net, layers=(first, *stay))
