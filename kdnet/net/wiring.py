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
    layers: list[LayerModel] = []
    left_out: list[LayerModel] = []
    for index, layer in enumerate(message.layer):
        at = source.at(("layer", index))
        included = is_included(layer, state, at, faults)
        (layers if included else left_out).append(_layer(layer, at, state.phase))
        if included:
            _check_counts(layer, at, faults)
    if not layers:
        phase = f" in phase {pb.Phase.Name(state.phase)}" if left_out else ""
        text = f'net "{message.name}" has no layer{phase}'
        faults.add(Diagnostic("empty-net", text, source.span(())))
    outputs = _wire(layers, left_out, faults)
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


def _wire(layers: list[LayerModel], left_out: list[LayerModel], faults: Faults) -> tuple[str, ...]:
    """Check every name; return the blobs that no layer reads, in alphabetical order.

    ``left_out`` are layers that the rules of include and exclude leave out.
    """
    makers: dict[str, Span | None] = {}
    unread: set[str] = set()
    for layer in layers:
        for index, bottom in enumerate(layer.bottoms):
            if bottom not in makers:
                elsewhere = _made_elsewhere(bottom, layers, left_out)
                faults.add(_unknown_bottom(layer, index, makers, elsewhere))
            unread.discard(bottom)
        for index, top in enumerate(layer.tops):
            in_place = index < len(layer.bottoms) and layer.bottoms[index] == top
            span = layer.source.span(("top", index))
            if top in makers and not in_place:
                faults.add(_duplicate_top(layer, top, span, makers[top]))
            makers[top] = span
            unread.add(top)
    return tuple(sorted(unread))


def _made_elsewhere(
    blob: str, layers: list[LayerModel], left_out: list[LayerModel]
) -> tuple[Note, str] | None:
    """Where a blob is made if not by an earlier layer, and what there is to do about it."""
    for others, where, hint in (
        (layers, "further down,", "a layer reads only what the layers above it produce"),
        (
            left_out,
            "left out of this phase,",
            "its include and exclude say in which phase and stage it is",
        ),
    ):
        other = next((layer for layer in others if blob in layer.tops), None)
        if other is not None:
            at = other.source.span(("top", other.tops.index(blob)))
            return Note(f'layer "{other.name}", {where} produces it', at), hint
    return None


def _unknown_bottom(
    layer: LayerModel,
    index: int,
    makers: dict[str, Span | None],
    elsewhere: tuple[Note, str] | None,
) -> Diagnostic:
    bottom = layer.bottoms[index]
    text = f'layer "{layer.name}": bottom "{bottom}" is not produced by any earlier layer'
    span = layer.source.span(("bottom", index))
    if elsewhere is not None:
        note, advice = elsewhere
        return Diagnostic("unknown-bottom", text, span, (note,), (advice,))
    near = nearest(bottom, makers)
    at = makers.get(near) if near else None
    hint = (f'did you mean "{near}" ({at})?',) if at else did_you_mean(bottom, makers)
    return Diagnostic("unknown-bottom", text, span, help=hint)


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
