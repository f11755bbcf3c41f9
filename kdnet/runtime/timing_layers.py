"""Which layer a node of a running session belongs to, and in which direction.

A node is known by its name, which the runtime's fusions keep in part. What the runtime adds, such
as changes of layout, has no name of ours: it belongs to the layer that it is done for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import onnx

from kdnet.compile import Forward
from kdnet.graph import SOURCE_KEY

FUSED = "fused "
COPIES = ("MemcpyFromHost", "MemcpyToHost")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# A change of layout ahead of the op that wants it; any other belongs to the op before it.
AHEAD = ("ReorderInput", "MemcpyFromHost")


class Part(Enum):
    """What a node is done for."""

    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"
    COPY = "copy"
    OTHER = "other"


class Owner(NamedTuple):
    """A layer's index in its net, None for no layer, and what is done for it."""

    layer: int | None
    part: Part


NOBODY = Owner(None, Part.OTHER)
UPDATE = Owner(None, Part.UPDATE)
COPY = Owner(None, Part.COPY)


class Owners:
    """The owners of the nodes of a session.

    Args:
        forward: the net, traced as the program was compiled.
        model: the program's model.
        optimized: the graph as the runtime runs it; without it, nodes are known by name only.
    """

    def __init__(
        self, forward: Forward, model: onnx.ModelProto, optimized: onnx.GraphProto | None = None
    ) -> None:
        names = _Names(forward)
        nodes = model.graph.node
        self._own = {node.name: node for node in nodes}
        self._owner = {node.name: names.owner(node) for node in nodes}
        self._forward: dict[int | None, list[str]] = {}
        for name, (layer, part) in self._owner.items():
            if part is Part.FORWARD:
                self._forward.setdefault(layer, []).append(name)
        self._order = {node.name: index for index, node in enumerate(nodes)}
        self._maker = {tensor: node.name for node in nodes for tensor in node.output}
        running = optimized.node if optimized else ()
        self._running = {node.name: node for node in running}
        self._running_maker = {tensor: node for node in running for tensor in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in running:
            for tensor in node.input:
                self._readers.setdefault(tensor, []).append(node)
        self._named = {name: self._beginning(name) for name in self._running}
        left = set(filter(None, self._named.values()))
        self._gone = {name for name in self._own if name not in left}
        self._origin = {node.name: self._origin_of(node) for node in running}
        # Whose name a running node bears, and what it does in truth, where they differ.
        self._host = {
            named: origin
            for running_name, named in self._named.items()
            if named and (origin := self._origin[running_name]) and origin != named
        }
        self._at_work = {origin for origin in self._origin.values() if origin}

    def owner(self, name: str, op_type: str) -> Owner:
        """Whose a node of the session is."""
        if op_type in COPIES:
            return COPY
        known = self._origin.get(name) or self._beginning(name) or self._neighbour(name)
        return self._owner[known] if known else NOBODY

    def computed_in(self, layer: int) -> tuple[int, ...]:
        """The layers whose nodes do the forward of a layer that has no node of its own left."""
        hosts = [self._host_of(name) for name in self._forward.get(layer, ())]
        found = [self._owner[host].layer for host in hosts if host]
        return tuple(dict.fromkeys(i for i in found if i is not None and i != layer))

    def _beginning(self, name: str) -> str | None:
        """The program's node whose name a node's begins with; fusions append to names."""
        name = name.removeprefix(FUSED)
        while name and name not in self._own:
            name = name[: max(name.rfind("/"), name.rfind("_"), 0)]
        return name or None

    def _origin_of(self, node: onnx.NodeProto) -> str | None:
        """The node that makes most of a fused node's work; it may bear the name of its last."""
        named = self._named[node.name]
        kind = node.op_type.removeprefix("Fused")
        if named is None or kind not in PRODUCTS or self._own[named].op_type in PRODUCTS:
            return named
        for name in self._above(named):
            if self._own[name].op_type in PRODUCTS:
                return name
        return named

    def _above(self, name: str) -> Iterator[str]:
        """The nodes that a node depends on through nodes that are gone, nearest first."""
        waiting, seen = deque(self._makers(name)), set()
        while waiting:
            name = waiting.popleft()
            if name in self._gone and name not in seen:
                seen.add(name)
                yield name
                waiting.extend(self._makers(name))

    def _makers(self, name: str) -> list[str]:
        return [self._maker[t] for t in self._own[name].input if t in self._maker]

    def _host_of(self, name: str) -> str | None:
        """Where the work of a node is done that does not run under its own name."""
        if name in self._host or name in self._at_work:
            return self._host.get(name, name)
        found = [maker for maker in self._makers(name) if maker not in self._gone]
        for above in self._above(name):
            if above in self._at_work:
                found.append(above)
            found += [maker for maker in self._makers(above) if maker not in self._gone]
        hosts = [self._host.get(maker, maker) for maker in found]
        return max(hosts, key=self._order.__getitem__, default=None)

    def _neighbour(self, name: str) -> str | None:
        node = self._running.get(name)
        if node is None:
            return None
        before = [self._running_maker.get(tensor) for tensor in node.input]
        after = [reader for tensor in node.output for reader in self._readers.get(tensor, ())]
        order = [*after, *before] if node.op_type in AHEAD else [*before, *after]
        origins = (self._origin[other.name] for other in order if other is not None)
        return next(filter(None, origins), None)


class _Names:
    """Owners by the names that the compiler gives."""

    def __init__(self, forward: Forward) -> None:
        layers = forward.net.layers
        self._layers = {layer.name: i for i, layer in reversed(list(enumerate(layers)))}
        self._places = {str(layer.position): i for i, layer in enumerate(layers) if layer.position}
        self._outputs = {report.output: self._layers[report.layer] for report in forward.reports()}
        self._ops = {op.name: self._layer(op.name, op.source) for op in forward.g.ops}

    def owner(self, node: onnx.NodeProto) -> Owner:
        """Whose a node of the program's own model is."""
        source = next((p.value for p in node.metadata_props if p.key == SOURCE_KEY), "")
        name = node.name
        if name in self._ops:
            return Owner(self._ops[name], Part.FORWARD)
        if name.startswith("grad/"):
            return Owner(self._differentiated(name.removeprefix("grad/"), source), Part.BACKWARD)
        if name.startswith(("update/", "accumulated/", "next/")):
            return UPDATE
        scope = name.rpartition("/")[0]
        layer = self._outputs.get(scope, self._places.get(source))
        return NOBODY if layer is None else Owner(layer, Part.FORWARD)

    def _differentiated(self, name: str, source: str) -> int | None:
        known = next((self._ops[part] for part in _beginnings(name) if part in self._ops), None)
        return self._layer(name, source) if known is None else known

    def _layer(self, name: str, source: str) -> int | None:
        if source in self._places:
            return self._places[source]
        return next(
            (self._layers[part] for part in _beginnings(name) if part in self._layers), None
        )


def _beginnings(name: str) -> Iterator[str]:
    """The scopes that a name lies in, the innermost first."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


@dataclass
class Shares:
    """Times by layer and direction, and what belongs to no layer; all in one unit."""

    forward: dict[int, float] = field(default_factory=dict)
    backward: dict[int, float] = field(default_factory=dict)
    update: float = 0.0
    copies: float = 0.0
    other: float = 0.0


def shares_of(owners: Owners, times: Mapping[tuple[str, str], float]) -> Shares:
    """What each layer takes of the times of the nodes, which are by name and op type."""
    found = Shares()
    for (name, op_type), time in times.items():
        layer, part = owners.owner(name, op_type)
        if part is Part.UPDATE:
            found.update += time
        elif part is Part.COPY:
            found.copies += time
        elif layer is None:
            found.other += time
        else:
            into = found.forward if part is Part.FORWARD else found.backward
            into[layer] = into.get(layer, 0.0) + time
    return found
