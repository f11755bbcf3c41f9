"""A net as a drawing in Graphviz's DOT language: ``kdnet draw``.

Layers are boxes, coloured by what they do, and blobs octagons between them; a layer that works in
place points at the blob and is pointed at by it. Teacher and student are framed where a loss says
which is which, and a layer that no solver changes has a dashed border. The net is read, not
traced, so it is drawn without its data, and with faults in it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kdnet.compile.summary_text import axis_numbers
from kdnet.errors import Faults, KdnetError, NetError
from kdnet.layers import is_data, layer_class, roles_of
from kdnet.net import LayerModel, NetModel, NetState, feeders, resolve_net, upstream
from kdnet.net.state import is_included
from kdnet.schema import Located, SourceMap, enum_name
from kdnet.schema import kdnet_pb2 as pb

DIRECTIONS = ("TB", "BT", "LR", "RL")

_CONVOLUTIONS = ("Convolution", "ConvolutionDepthwise", "Deconvolution", "DepthwiseConvolution")
_COLOURS = {
    **dict.fromkeys(_CONVOLUTIONS, "#FF5050"),
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_DATA, _LOSS, _METRIC = "#8FD3C8", "#FFD54F", "#FFF3B0"
_IN_PLACE, _OTHER, _BLOB = "#90EE90", "#6495ED", "#E0E0E0"


@dataclass(frozen=True)
class Drawing:
    """How a net is drawn; without a ``state`` with the layers of all phases."""

    rankdir: str = "LR"
    state: NetState | None = None
    show_rates: bool = False


class _Node(NamedTuple):
    """A line of DOT and the frame that it belongs in."""

    frame: str
    text: str


def draw(located: Located[pb.NetParameter], how: Drawing) -> str:
    """The DOT text of a net.

    Raises:
        NetError: include-and-exclude.
    """
    net = located.message
    frames = _frames(located, how.state or NetState(pb.TRAIN))
    chosen = [(i, layer) for i, layer in enumerate(net.layer) if _is_drawn(located, i, how)]
    nodes, edges = [], list[str]()
    blobs: dict[str, str] = {}
    for index, layer in chosen:
        frame = frames.get(index, "")
        nodes.append(_Node(frame, _layer_node(index, layer, how)))
        for top in layer.top:
            blobs.setdefault(top, frame)
        edges += _edges(index, layer)
    for bottom in (name for _, layer in chosen for name in layer.bottom):
        blobs.setdefault(bottom, "")
    look = f'shape=octagon, style=filled, fillcolor="{_BLOB}"'
    nodes += [
        _Node(frame, f"{_quoted(f'blob {name}')} [label={_quoted(name)}, {look}];")
        for name, frame in blobs.items()
    ]
    return "\n".join(_lines(net.name, how.rankdir, nodes, edges)) + "\n"


def _lines(name: str, rankdir: str, nodes: Sequence[_Node], edges: Sequence[str]) -> Iterator[str]:
    yield f"digraph {_quoted(name or 'Net')} {{"
    yield f"  rankdir={rankdir};"
    for kind in ("graph", "node", "edge"):
        yield f'  {kind} [fontname="Helvetica"];'
    for node in nodes:
        if not node.frame:
            yield f"  {node.text}"
    for frame in dict.fromkeys(node.frame for node in nodes if node.frame):
        yield f"  subgraph {_quoted(f'cluster {frame}')} {{"
        yield f"    label={_quoted(frame)};"
        yield from (f"    {node.text}" for node in nodes if node.frame == frame)
        yield "  }"
    yield from (f"  {edge}" for edge in edges)
    yield "}"


def _is_drawn(located: Located[pb.NetParameter], index: int, how: Drawing) -> bool:
    if how.state is None:
        return True
    faults = Faults(NetError)
    layer, place = located.message.layer[index], located.source.at(("layer", index))
    drawn = is_included(layer, how.state, place, faults)
    faults.raise_if_any()
    return drawn


def _layer_node(index: int, layer: pb.LayerParameter, how: Drawing) -> str:
    style = "filled,dashed" if _is_frozen(layer) else "filled"
    label = _quoted(_label(layer, how))
    colour = _colour(layer)
    return f'{_node(index)} [label={label}, shape=box, style="{style}", fillcolor="{colour}"];'


def _edges(index: int, layer: pb.LayerParameter) -> Iterator[str]:
    for bottom in layer.bottom:
        yield f"{_quoted(f'blob {bottom}')} -> {_node(index)};"
    label = _edge_label(layer)
    for top in layer.top:
        yield f"{_node(index)} -> {_quoted(f'blob {top}')}{label};"


def _node(index: int) -> str:
    """Names alone would make one of layers that differ by phase."""
    return f'"layer {index}"'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _label(layer: pb.LayerParameter, how: Drawing) -> str:
    said = [layer.name, f"({_type(layer)})"]
    params = _window_params(layer)
    if params is not None:
        for name, words in (("kernel_size", "kernel size"), ("stride", "stride"), ("pad", "pad")):
            numbers = axis_numbers(params, name)
            default = "0" if name == "pad" else "1"
            said.append(f"{words}: {numbers or default}")
    rates = _rates(layer)
    if how.show_rates and any(rates):
        said.append(f"lr mult: {', '.join(f'{rate:g}' for rate in rates)}")
    phases = [pb.Phase.Name(rule.phase) for rule in layer.include if rule.HasField("phase")]
    if how.state is None and phases:
        said.append(" ".join(dict.fromkeys(phases)))
    # A drawing that grows downwards has room beside a word, one that grows sideways below it.
    return (" " if how.rankdir in ("TB", "BT") else "\n").join(said)


def _type(layer: pb.LayerParameter) -> str:
    if layer.type != "Pooling":
        return layer.type
    return f"Pooling {enum_name(pb.PoolingParameter.PoolMethod, layer.pooling_param.pool)}"


def _window_params(
    layer: pb.LayerParameter,
) -> pb.ConvolutionParameter | pb.PoolingParameter | None:
    if layer.type in _CONVOLUTIONS:
        return layer.convolution_param
    pooled = layer.type == "Pooling" and not layer.pooling_param.global_pooling
    return layer.pooling_param if pooled else None


def _edge_label(layer: pb.LayerParameter) -> str:
    """The size of a batch, or the number of outputs."""
    if layer.type == "Data":
        return f' [label="Batch {layer.data_param.batch_size}"]'
    if layer.type in _CONVOLUTIONS:
        return f' [label="{layer.convolution_param.num_output}"]'
    if layer.type == "InnerProduct":
        return f' [label="{layer.inner_product_param.num_output}"]'
    return ""


def _rates(layer: pb.LayerParameter) -> list[float]:
    """What multiplies the rate of each weight blob; two for a layer that does not say."""
    given = [spec.lr_mult for spec in layer.param]
    learns = layer.type in (*_CONVOLUTIONS, "InnerProduct")
    return given + [1.0] * (2 - len(given)) if learns else given


def _is_frozen(layer: pb.LayerParameter) -> bool:
    rates = _rates(layer)
    return bool(rates) and not any(rates)


def _colour(layer: pb.LayerParameter) -> str:
    if list(layer.bottom) == list(layer.top) and len(layer.top) == 1:
        return _IN_PLACE
    if layer.type in _COLOURS:
        return _COLOURS[layer.type]
    try:
        model = LayerModel(layer.name, layer.type, (), (), pb.TRAIN, layer, SourceMap.empty())
        kind = layer_class(model)
        data = is_data(model)
    except KdnetError:
        return _OTHER
    by_kind = ((data, _DATA), (kind.is_loss, _LOSS), (kind.is_metric, _METRIC))
    return next((colour for holds, colour in by_kind if holds), _OTHER)


def _frames(located: Located[pb.NetParameter], state: NetState) -> dict[int, str]:
    """The layers that only a teacher, or only a student, is made of, by their index."""
    try:
        net = resolve_net(located.message, located.source, state)
        teachers, students = (_behind(net, role) for role in ("teacher", "student"))
        data = {i for i, layer in enumerate(net.layers) if is_data(layer)}
    except KdnetError:
        return {}
    faults = Faults(NetError)
    places = [
        index
        for index, layer in enumerate(located.message.layer)
        if is_included(layer, state, located.source.at(("layer", index)), faults)
    ]
    teacher = dict.fromkeys((places[i] for i in sorted(teachers - students - data)), "teacher")
    student = dict.fromkeys((places[i] for i in sorted(students - teachers - data)), "student")
    return teacher | student


def _behind(net: NetModel, role: str) -> set[int]:
    """The layers on which the bottoms depend that have a role in some loss."""
    makers = [
        maker
        for layer, made_by in zip(net.layers, feeders(net), strict=True)
        for maker, found in zip(made_by, roles_of(layer), strict=True)
        if found.partition(" ")[0] == role
    ]
    return set(upstream(net, makers))
