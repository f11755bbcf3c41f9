"""What layers ask for beside their tops: noise, state updates, label checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdnet.errors import Span
from kdnet.graph import Emitter, Tensor
from kdnet.layers.kept import Kept

if TYPE_CHECKING:
    from kdnet.layers.python.layer import Hosted


def scalar_name(layer: str, field_name: str) -> str:
    """The input that carries a scheduled number of a layer."""
    return f"scalar/{layer}/{field_name}"


@dataclass(frozen=True)
class Noise:
    """A float32 input of uniform numbers in [0, 1), drawn anew for each micro-step."""

    tensor: Tensor
    layer: str


@dataclass(frozen=True)
class LabelCheck:
    """Labels that must be integers in [0, classes), or ``ignore``, whenever they are fed.

    ``kind`` says what they number: "label" for classes, "index" for rows of a table, "item" for
    items of a batch, "record" for records of the data.
    """

    tensor: Tensor
    layer: str
    classes: int
    ignore: int | None
    span: Span | None
    kind: str = "label"


@dataclass(frozen=True)
class Sink:
    """Two blobs that a layer writes to a file on the host, batch by batch."""

    layer: str
    file: str
    bottoms: tuple[Tensor, Tensor]
    span: Span | None


@dataclass
class Trace:
    """Collected while the layers of one net emit their forward pass.

    ``scheduled`` are the (layer, field) pairs that the solver moves while it trains; ``scalars``
    the inputs by which they reach the graph; ``asked`` the numbers by layer that can be scheduled.
    ``batch_sizes`` are those of the layers that read data; ``hosted`` are layers in Python, and
    ``made_on_host`` the inputs that they fill. ``sinks`` are what is written to files.
    ``kept`` are the blobs that a Filter left only some items of.
    """

    noise: list[Noise] = field(default_factory=list)
    updates: dict[Tensor, Tensor] = field(default_factory=dict)
    labels: list[LabelCheck] = field(default_factory=list)
    data: dict[str, Tensor] = field(default_factory=dict)
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    batch_sizes: dict[str, int] = field(default_factory=dict)
    hosted: list[Hosted] = field(default_factory=list)
    made_on_host: set[Tensor] = field(default_factory=set)
    sinks: list[Sink] = field(default_factory=list)
    kept: dict[str, Kept] = field(default_factory=dict)
    scheduled: frozenset[tuple[str, str]] = frozenset()
    scalars: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)

    def scalar(self, g: Emitter, layer: str, name: str) -> Tensor:
        """The input that carries a scheduled number, the same one for whoever asks again."""
        if (layer, name) not in self.scalars:
            self.scalars[layer, name] = g.input(scalar_name(layer, name), ())
        return self.scalars[layer, name]
