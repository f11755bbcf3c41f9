"""Ranges of a net's layers as programs: their forward pass, and the gradients through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kdnet.api.way_back import WayBack
from kdnet.autodiff import gradients
from kdnet.compile import Forward, Program, trace_forward
from kdnet.compile.assemble import WATCHED, assemble, loss_outputs, watch
from kdnet.graph import Emitter, Tensor
from kdnet.net import LayerModel, NetModel
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import Schedule

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
User = tuple[str, int]


@dataclass(frozen=True)
class Segment:
    """A compiled range of layers.

    Attributes:
        program: the program; None where there is nothing to compute.
        inputs: the blob behind each data input of the program.
        seeds: the blob whose diff is behind each other data input.
        values: the blob behind each output that is a blob's values, or its gradient.
        slopes: the weight behind each output that is a weight's gradient, by its first user.
        weights: the first user of each weight input, and the shape in which it is read.
        shapes: the shape of every blob that the range makes or reads.
    """

    program: Program | None
    inputs: dict[str, str]
    seeds: dict[str, str]
    values: dict[str, str]
    slopes: dict[str, User]
    weights: dict[str, tuple[User, Shape]]
    shapes: dict[str, Shape]


def trace_range(
    net: NetModel,
    layers: range,
    shapes: Shapes,
    provider: str = "cpu",
    schedules: Sequence[Schedule] = (),
) -> Forward:
    """Trace some layers of a net; blobs that they read from outside of them are inputs.

    Args:
        net: the whole net.
        layers: their indices.
        shapes: those of the blobs that are read, and of Input layers' tops where they differ
            from what the layer says.
        provider: "cpu" or "cuda".
        schedules: the numbers that a solver moves.

    Raises:
        LayerError: the faults of the layers.
    """
    chosen = net.layers[layers.start : layers.stop]
    outside = outside_blobs(chosen)
    if outside:
        message = pb.LayerParameter(type="Input", top=outside)
        source = SourceMap.empty()
        feeding = LayerModel("", "Input", (), outside, net.phase, message, source)
        chosen = (feeding, *chosen)
    inputs = [top for layer in chosen if layer.type == "Input" for top in layer.tops]
    stated = {name: shapes[name] for name in inputs if name in shapes}
    part = replace(net, layers=chosen, outputs=())
    return trace_forward(part, Emitter(provider=provider), stated, schedules, apart=True)


def outside_blobs(layers: Iterable[LayerModel]) -> tuple[str, ...]:
    """The blobs that layers read before any of them makes them."""
    made: set[str] = set()
    found: dict[str, None] = {}
    for layer in layers:
        found |= dict.fromkeys(bottom for bottom in layer.bottoms if bottom not in made)
        made |= {*layer.bottoms, *layer.tops}
    return tuple(found)


def forward_segment(forward: Forward) -> Segment:
    """The program that computes every blob, the state that layers update, and the loss."""
    fed = set(forward.trace.data.values())
    wanted = {
        f"blob/{name}": tensor for name, tensor in _blobs(forward).items() if tensor not in fed
    }
    return _segment(forward, wanted, {}, list(forward.trace.updates.items()), with_loss=True)


def backward_segment(forward: Forward, depth: int, way: WayBack) -> Segment:
    """The program that computes the gradients of what a range's blobs are handed.

    The gradient that waits at a blob is an input. A blob's gradient is that of the first value it
    has, as in-place layers leave it in Caffe.

    Args:
        forward: the traced range, up to the layer at which the gradients start.
        depth: how many layers they go through.
        way: the backward pass that they belong to.

    Raises:
        GraphError: an op on the way has no gradient.
    """
    start = len(forward.net.layers) - depth
    passed = {layer.name for layer in forward.net.layers[start:]}
    seeds = _seeds(forward, start, way)
    firsts = _first_values(forward, start)
    blobs = {name: t for name, t in firsts.items() if t.is_float and name in way.wanted}
    trained = {
        tensor: blob
        for tensor, blob in forward.weights.items()
        if not (blob.weight.state or way.trained.isdisjoint(blob.users))
        and any(user[0] in passed for user in blob.users)
    }
    with forward.g.scope("grad", forward.source):
        found = gradients(forward.g, seeds, [*trained, *blobs.values()])
    wanted = {f"blob/{name}": found[t] for name, t in blobs.items() if t in found}
    # A blob whose gradient is handed in keeps it.
    for name in way.ends.intersection(firsts):
        if firsts[name] is forward.blobs[name]:
            wanted.pop(f"blob/{name}", None)
    users = {t: next(iter(blob.users)) for t, blob in trained.items()}
    wanted |= {f"weight/{t.name}": found[t] for t in trained if t in found}
    slopes = {f"weight/{t.name}": users[t] for t in trained}
    return _segment(forward, wanted, slopes, [])


def _blobs(forward: Forward) -> dict[str, Tensor]:
    """The net's own blobs; a loss without a top has one that has no name."""
    named = {top for layer in forward.net.layers for top in layer.tops}
    return {name: tensor for name, tensor in forward.blobs.items() if name in named}


def _seeds(forward: Forward, start: int, way: WayBack) -> list[tuple[Tensor, Tensor]]:
    """Where gradients start: what waits at blobs, the loss weight of what is read further."""
    g, found, layers = forward.g, [], forward.net.layers[start:]
    for name in way.seeds(layers):
        tensor = forward.blobs[name]
        if tensor.is_float:
            seed = g.input(f"diff/{name}", tensor.shape)
            forward.trace.data[f"diff/{name}"] = seed
            found.append((tensor, seed))
    ends = [forward.blobs[name] for name in way.ends.intersection(forward.blobs)]
    passed = {layer.name for layer in layers}
    for loss in forward.losses:
        if loss.layer.name in passed and not any(loss.top is end for end in ends):
            with g.scope("grad/loss", str(loss.layer.position or "")):
                seed = g.expand(g.like(loss.factor, loss.top), loss.top.shape)
            found.append((loss.top, seed))
    return found


def _first_values(forward: Forward, start: int) -> dict[str, Tensor]:
    """The tensor of each blob as the layers from ``start`` on first read or make it."""
    found: dict[str, Tensor] = {}
    latest: dict[str, Tensor] = {}
    for index, layer in enumerate(forward.net.layers):
        if index >= start:
            for name in layer.bottoms:
                found.setdefault(name, latest[name])
        latest |= zip(layer.tops, forward.tops[index], strict=True)
        if index >= start:
            for name in layer.tops:
                found.setdefault(name, latest[name])
    return found


def _segment(
    forward: Forward,
    wanted: Mapping[str, Tensor],
    slopes: Mapping[str, User],
    pairs: list[tuple[Tensor, Tensor]],
    *,
    with_loss: bool = False,
) -> Segment:
    outputs = watch(forward, wanted, {})
    outputs |= loss_outputs(forward) if with_loss else {}
    program = assemble("range", forward, outputs, pairs) if outputs or pairs else None
    data = {tensor.name: key for key, tensor in forward.trace.data.items()}
    fed = {name: data[name] for name in (program.data if program else ())}
    prefix = "diff/"
    used = set(program.reads) | {slot.name for slot in program.state} if program else set()
    return Segment(
        program,
        {name: key for name, key in fed.items() if not _is_seed(forward, key)},
        {name: key.removeprefix(prefix) for name, key in fed.items() if _is_seed(forward, key)},
        {f"{WATCHED}/{name}": name.removeprefix("blob/") for name in wanted if name not in slopes},
        {f"{WATCHED}/{name}": user for name, user in slopes.items() if name in wanted},
        {
            tensor.name: (next(iter(blob.users)), tensor.shape)
            for tensor, blob in forward.weights.items()
            if tensor.name in used
        },
        {name: tensor.shape for name, tensor in _blobs(forward).items()},
    )


def _is_seed(forward: Forward, key: str) -> bool:
    return key.startswith("diff/") and key not in forward.blobs
