"""What a join works on: the nets that take part, and what it must be told of layer types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kdnet.errors import Span
from kdnet.net.model import LayerModel
from kdnet.net.rename import Mapping
from kdnet.schema import Located, SourceMap, read_net
from kdnet.schema import kdnet_pb2 as pb

TEACHER, STUDENT = "teacher", "student"
PHASES = (pb.TRAIN, pb.TEST)


@dataclass(frozen=True)
class LayerKind:
    """What a layer type is to a join.

    ``fed`` marks data layers that read nothing themselves, ``transforms`` those that crop and
    scale images; ``roles`` and the ``least`` number of bottoms are a loss's or a metric's, and
    ``params`` names the type's parameter field. ``levels`` marks losses that take features of any
    number of levels, all of the student's before all of the teacher's. ``whole`` marks a net of
    its own inside one layer, whose only top is its answer.
    """

    data: bool = False
    fed: bool = False
    transforms: bool = False
    loss: bool = False
    metric: bool = False
    softmax: bool = False
    roles: tuple[str, ...] = ()
    least: int = 1
    levels: bool = False
    whole: bool = False
    params: str = ""

    def role(self, bottom: int) -> str:
        """What a bottom is; the last role holds for all that follow."""
        return self.roles[min(bottom, len(self.roles) - 1)] if self.roles else ""


@dataclass(frozen=True)
class Kinds:
    """What whoever joins knows: a layer's kind, how many weights would train, and reading nets."""

    of: Callable[[LayerModel], LayerKind]
    weights: Callable[[LayerModel], int]
    read: Callable[[str], Located[pb.NetParameter]] = read_net


@dataclass
class Member:
    """One net of a join.

    Attributes:
        name: What losses, comments and files call it.
        role: ``TEACHER`` or ``STUDENT``.
        entry: Its message in the description.
        at: Where that message stands.
        path: Its file.
        title: Its own name, as its file gives it.
        mapping: How its layers are renamed.
        rules: The rename rules as text.
        frozen: Whether its weights stand still.
        fixed: Whether its layers run in TEST phase while training.
        data: Its data layers, of all phases.
        layers: Its other layers, in order; those that nobody needs go.
        tops: The blobs that they make, before any went.
        start: Where its net begins.
        brings_weights: Whether its layers hold their weights themselves, as ONNX models do.
        logits: The blob of class scores, "" for none.
        blobs: Its blobs, as they stand at its end, by the names that they have in the joined net.
        scores: The joined name of its class scores as losses between logits read them.
    """

    name: str
    role: str
    entry: pb.JoinNetParameter
    at: SourceMap
    path: str
    title: str
    mapping: Mapping
    rules: tuple[str, ...]
    frozen: bool
    fixed: bool
    data: list[LayerModel]
    layers: list[LayerModel]
    tops: tuple[str, ...]
    start: Span | None = None
    brings_weights: bool = False
    logits: str = ""
    blobs: dict[str, str] = field(default_factory=dict)
    scores: str = ""

    def keeps(self, which: str) -> bool:
        """Whether its own ``losses`` or ``metrics`` stay."""
        name = f"keep_{which}"
        return bool(getattr(self.entry, name)) if self.entry.HasField(name) else not self.frozen

    @property
    def bare(self) -> list[str]:
        """Layers whose weights have no filler, by their joined names."""
        return [self.mapping.rename(one.name) for one in self.layers if _lacks_filler(one)]

    def span(self, *path: str | int) -> Span | None:
        """Where a field of its description stands, or else where its net begins."""
        return self.at.span(path) or self.start

    def joined_blob(self, name: str) -> str | None:
        """The joined name of a blob that is called by its own or by its joined name."""
        return self.blobs.get(name) or (name if name in self.blobs.values() else None)

    def fresh(self, name: str, taken: Iterable[str]) -> str:
        """A new name under the net's rules, or below the net's name where that one is taken."""
        new = self.mapping.rename(name)
        return f"{self.name}/{name}" if new in taken else new


def _lacks_filler(layer: LayerModel) -> bool:
    return any(
        "weight_filler" in spec.message_type.fields_by_name and not value.HasField("weight_filler")
        for spec, value in layer.message.ListFields()
        if spec.message_type is not None and hasattr(value, "HasField")
    )


@dataclass(frozen=True)
class Placed:
    """A layer of the joined net, and a comment that stands above it in the text."""

    message: pb.LayerParameter
    source: SourceMap
    comment: str = ""


def noted(layers: Sequence[Placed], comment: str) -> list[Placed]:
    """The layers, the first one under a comment."""
    return [replace(layers[0], comment=comment), *layers[1:]] if layers else []


def model_of(message: pb.LayerParameter, source: SourceMap, phase: int = pb.TRAIN) -> LayerModel:
    """The model of a layer, whose own phase wins."""
    own = message.phase if message.HasField("phase") else phase
    tops = tuple(message.top)
    return LayerModel(
        message.name, message.type, tuple(message.bottom), tops, own, message, source
    )


def submessages(message: Any) -> Iterator[Any]:
    """Every message inside a message, whatever its depth."""
    for spec, value in message.ListFields():
        if spec.message_type is not None:
            for one in (value,) if hasattr(value, "ListFields") else value:
                yield one
                yield from submessages(one)


def unique(names: Iterable[str]) -> list[str]:
    """Names in order, each once."""
    return list(dict.fromkeys(names))


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Quoted names, the first ``limit`` of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(f'"{name}"' for name in names[:limit]) + more
