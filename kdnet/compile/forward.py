"""Traces the forward pass: every layer of a net emits its ops onto one emitter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kdnet.compile.program import Report
from kdnet.compile.weights import Blob, WeightTable, check_size
from kdnet.errors import Diagnostic, Faults, GraphError, LayerError
from kdnet.graph import Emitter, Tensor
from kdnet.layers import DataLayer, Layer, Trace, layer_class
from kdnet.layers.base import ANY, Arity
from kdnet.layers.behind_filters import pass_on, receive
from kdnet.net import LayerModel, NetModel
from kdnet.solvers import Schedule

RESERVED = (
    "accumulated/",
    "history/",
    "next/",
    "noise/",
    "output/",
    "python/",
    "scalar/",
    "total/",
    "watched/",
)


@dataclass(frozen=True)
class Loss:
    """A top with a loss weight and its layer; ``scheduled`` carries a weight that moves."""

    top: Tensor
    weight: float
    layer: LayerModel
    scheduled: Tensor | None = None

    @property
    def factor(self) -> Tensor | float:
        """The weight as an operand."""
        return self.weight if self.scheduled is None else self.scheduled


@dataclass
class Forward:
    """A traced net: its graph, its blobs by name, and what its layers asked for.

    ``bottoms`` and ``tops`` are what each layer reads and makes, by its index: a name alone would
    not tell a blob from what an in-place layer makes of it. ``uses`` are each layer's weights as
    it reads them.
    """

    net: NetModel
    g: Emitter
    trace: Trace
    table: WeightTable
    schedules: Sequence[Schedule] = ()
    blobs: dict[str, Tensor] = field(default_factory=dict)
    bottoms: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    tops: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    uses: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    makers: dict[str, tuple[LayerModel, float]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the net begins: the source of nodes that belong to no layer."""
        return str(self.net.source.span(()) or "")

    @property
    def weights(self) -> Mapping[Tensor, Blob]:
        """Every weight blob, by its tensor."""
        return self.table.blobs

    def reports(self) -> list[Report]:
        """The net's outputs: blobs that nobody reads, in alphabetical order."""
        found = []
        for name in self.net.outputs:
            model, weight = self.makers[name]
            index = model.tops.index(name)
            span = model.source.span(("top", index))
            shape = self.blobs[name].shape
            moving = self.trace.scalars.get((model.name, weight_field(index)))
            carrier = moving.name if moving else ""
            found.append(Report(name, f"output/{name}", shape, weight, model.name, span, carrier))
        return found


def weight_field(top: int) -> str:
    """How a schedule calls the loss weight of a layer's top."""
    return f"loss_weight.{top}" if top else "loss_weight"


def trace_forward(
    net: NetModel,
    g: Emitter,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    schedules: Sequence[Schedule] = (),
    *,
    apart: bool = False,
) -> Forward:
    """Emit every layer of ``net``.

    Args:
        net: the net in one phase.
        g: the emitter to append to.
        input_shapes: shapes of data tops, batch axis included, that win over what the net says.
        schedules: the numbers that are inputs because the solver moves them.
        apart: whether each layer reads copies of its own of bottoms and weights, so that what each
            reader adds to a gradient can be told.

    Raises:
        LayerError: the faults of all layers; a layer below a faulty one is not looked at.
    """
    scheduled = frozenset((item.layer, item.field) for item in schedules)
    trace = Trace(input_shapes=dict(input_shapes or {}), scheduled=scheduled)
    forward = Forward(net, g, trace, WeightTable(), schedules)
    faults = Faults(LayerError)
    for index, model in enumerate(net.layers):
        if not all(bottom in forward.blobs for bottom in model.bottoms):
            continue
        read = tuple(forward.blobs[bottom] for bottom in model.bottoms)
        forward.bottoms[index] = _copies(forward, model, read) if apart else read
        try:
            _emit_layer(forward, index, apart=apart)
            forward.tops[index] = tuple(forward.blobs[top] for top in model.tops)
        except LayerError as error:
            faults.extend(error)
            for top in model.tops:
                forward.blobs.pop(top, None)
    faults.raise_if_any()
    return forward


def _copies(forward: Forward, model: LayerModel, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A copy of each tensor; data and numbers that are not floats stay what they are."""
    g, data = forward.g, set(forward.trace.data.values())
    with g.scope(f"{model.name}/copy", str(model.position or "")):
        return tuple(t if t in data or not t.is_float else g.op("Identity", t) for t in tensors)


def _emit_layer(forward: Forward, index: int, *, apart: bool) -> None:
    model = _with_automatic_top(forward.net.layers[index])
    layer = layer_class(model)(model, forward.trace)
    _check_arity(layer, "bottom", model.bottoms, layer.bottoms)
    _check_arity(layer, "top", model.tops, layer.tops)
    _check_names(layer)
    bottoms = [
        _held(forward.g, model, number, bottom)
        for number, bottom in enumerate(forward.bottoms[index])
    ]
    layer.check(*bottoms)
    receive(layer, [forward.blobs[name] for name in model.bottoms])
    _check_extremes(forward, layer, bottoms)
    declared = layer.weights(*bottoms)
    weights = forward.table.declare(forward.g, layer, declared)
    if apart and not any(weight.state for weight in declared):
        weights = list(_copies(forward, model, weights))
    forward.uses[index] = tuple(weights)
    with forward.g.scope(model.name, str(model.position or "")):
        try:
            emitted = layer.emit(forward.g, *bottoms, *weights)
        except GraphError as error:
            text = error.diagnostics[0].message
            layer.fail("shape-mismatch", text, model.position)
    tops = emitted if isinstance(emitted, tuple) else (emitted,)
    pass_on(layer, bottoms, tops)
    _bind_tops(forward, layer, tops)


def _check_extremes(forward: Forward, layer: Layer, bottoms: Sequence[Tensor]) -> None:
    """The layer's own checks, with each scheduled parameter at the ends of its way."""
    for item in forward.schedules:
        if item.layer != layer.model.name or not hasattr(layer.params, item.field):
            continue
        for value in item.extremes:
            message = type(layer.model.message)()
            message.CopyFrom(layer.model.message)
            setattr(getattr(message, layer.params_field), item.field, value)
            model = replace(layer.model, message=message)
            type(layer)(model, replace(forward.trace, labels=[])).check(*bottoms)


def _with_automatic_top(model: LayerModel) -> LayerModel:
    """A loss whose top the prototxt leaves unnamed gets one, which nobody can read or see."""
    if model.tops or not layer_class(model).is_loss:
        return model
    return replace(model, tops=(f"{model.name} (automatic)",))


def _check_names(layer: Layer) -> None:
    """Data tops are inputs of the graph under their own names, beside the compiler's."""
    if not isinstance(layer, DataLayer):
        return
    for index, top in enumerate(layer.model.tops):
        if top.startswith(RESERVED):
            span = layer.model.source.span(("top", index))
            text = f'a data top may not begin with "{top.split("/")[0]}/", as "{top}" does'
            layer.fail("reserved-name", text, span)


def _held(g: Emitter, model: LayerModel, index: int, bottom: Tensor) -> Tensor:
    """The bottom, cut off from gradients where ``propagate_down: false`` says so."""
    given = model.message.propagate_down
    if index < len(given) and not given[index] and bottom.is_float:
        with g.scope(model.name, str(model.position or "")):
            return g.stop_gradient(bottom)
    return bottom


def _bind_tops(forward: Forward, layer: Layer, tops: tuple[Tensor, ...]) -> None:
    model = layer.model
    weights = list(model.message.loss_weight)
    if not weights and layer.is_loss:
        weights = [1.0]
    weights += [0.0] * (len(tops) - len(weights))
    for index, (name, top, weight) in enumerate(zip(model.tops, tops, weights, strict=True)):
        check_size(layer, f'top "{name}"', top.shape)
        forward.blobs[name] = top
        forward.makers[name] = (model, weight)
        moving = _scheduled_weight(forward, layer, index)
        if weight or moving:
            forward.losses.append(Loss(top, weight, model, moving))


def _scheduled_weight(forward: Forward, layer: Layer, top: int) -> Tensor | None:
    name = weight_field(top)
    if layer.is_loss or layer.model.message.loss_weight:
        forward.trace.asked.setdefault(layer.model.name, []).append(name)
    if (layer.model.name, name) not in forward.trace.scheduled:
        return None
    return forward.trace.scalar(forward.g, layer.model.name, name)


def _check_arity(layer: Layer, word: str, names: tuple[str, ...], arity: Arity) -> None:
    low, high = arity if isinstance(arity, tuple) else (arity, arity)
    if low <= len(names) <= high:
        return
    wanted = str(low) if low == high else f"{low} to {high}" if high < ANY else f"{low} or more"
    span = layer.model.source.span((word, min(high, len(names) - 1))) if names else None
    plural = "" if wanted == "1" else "s"
    who = f'layer "{layer.model.name}" ({layer.type})'
    text = f"{who} takes {wanted} {word}{plural}, not {len(names)}"
    raise LayerError(Diagnostic(f"{word}-count", text, span or layer.model.position))
