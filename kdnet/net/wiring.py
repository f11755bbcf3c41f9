"""Joins layers by the names of their bottoms and tops, by Caffe's rules (net.cpp)."""

from __future__ import annotations

from kdnet.errors import Diagnostic, Faults, NetError, Note, Span, did_you_mean, nearest
from kdnet.net.model import LayerModel, NetModel
from kdnet.net.state import NetState, is_included
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb


def resolve_net(message: pb.NetParameter, source: SourceMap, state: NetState) -> NetModel:
    """The net's layers for ``state``, with every bottom joined to the top that makes it.

    Raises:
        NetError: all wiring faults: unknown-bottom, duplicate-top, include-and-exclude,
            loss-weight-count, propagate-down-count, empty-net.
    """
    faults = Faults(NetError)
    layers = []
    for index, layer in enumerate(message.layer):
        at = source.at(("layer", index))
        if is_included(layer, state, at, faults):
            layers.append(_layer(layer, at, state.phase))
            _check_counts(layer, at, faults)
    if not layers:
        text = f'net "{message.name}" has no layer in phase {pb.Phase.Name(state.phase)}'
        faults.add(Diagnostic("empty-net", text, source.span(())))
    outputs = _wire(layers, faults)
    faults.raise_if_any()
    return NetModel(message.name, state.phase, tuple(layers), outputs, message, source)


def _layer(layer: pb.LayerParameter, source: SourceMap, net_phase: int) -> LayerModel:
    return LayerModel(
        layer.name,
        layer.type,
        tuple(layer.bottom),
        tuple(layer.top),
        layer.phase if layer.HasField("phase") else net_phase,
        layer,
        source,
    )


def _check_counts(layer: pb.LayerParameter, source: SourceMap, faults: Faults) -> None:
    weights, tops = len(layer.loss_weight), len(layer.top)
    # A loss may leave its top unnamed and still weigh it.
    if weights not in (0, max(1, tops)):
        text = (
            f'layer "{layer.name}": loss_weight is given {weights} times for {_count(tops, "top")}'
        )
        hint = ("give it once for each top, or not at all",)
        at = source.span(("loss_weight", 0))
        faults.add(Diagnostic("loss-weight-count", text, at, help=hint))
    given, bottoms = len(layer.propagate_down), len(layer.bottom)
    if given not in (0, bottoms):
        known = _count(bottoms, "bottom")
        text = f'layer "{layer.name}": propagate_down is given {given} times for {known}'
        hint = ("give it once for each bottom, or not at all",)
        at = source.span(("propagate_down", 0))
        faults.add(Diagnostic("propagate-down-count", text, at, help=hint))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _wire(layers: list[LayerModel], faults: Faults) -> tuple[str, ...]:
    """Check every name; return the blobs that no layer reads, in alphabetical order."""
    makers: dict[str, Span | None] = {}
    unread: set[str] = set()
    for layer in layers:
        for index, bottom in enumerate(layer.bottoms):
            if bottom not in makers:
                faults.add(_unknown_bottom(layer, index, makers, layers))
            unread.discard(bottom)
        for index, top in enumerate(layer.tops):
            in_place = index < len(layer.bottoms) and layer.bottoms[index] == top
            span = layer.source.span(("top", index))
            if top in makers and not in_place:
                faults.add(_duplicate_top(layer, top, span, makers[top]))
            makers[top] = span
            unread.add(top)
    return tuple(sorted(unread))


def _unknown_bottom(
    layer: LayerModel, index: int, makers: dict[str, Span | None], layers: list[LayerModel]
) -> Diagnostic:
    bottom = layer.bottoms[index]
    text = f'layer "{layer.name}": bottom "{bottom}" is not produced by any earlier layer'
    later = next((other for other in layers if bottom in other.tops), None)
    if later is not None:
        at = later.source.span(("top", later.tops.index(bottom)))
        notes: tuple[Note, ...] = (Note(f'layer "{later.name}", further down, produces it', at),)
        hint: tuple[str, ...] = ("a layer reads only what the layers above it produce",)
    else:
        notes = ()
        near = nearest(bottom, makers)
        at = makers.get(near) if near else None
        hint = (f'did you mean "{near}" ({at})?',) if at else did_you_mean(bottom, makers)
    span = layer.source.span(("bottom", index))
    return Diagnostic("unknown-bottom", text, span, notes, hint)


def _duplicate_top(
    layer: LayerModel, top: str, span: Span | None, first: Span | None
) -> Diagnostic:
    return Diagnostic(
        "duplicate-top",
        f'layer "{layer.name}": top "{top}" is already produced by an earlier layer',
        span,
        (Note("produced here first", first),),
        ("to work in place, name the same blob at the same index of bottom and top",),
    )
