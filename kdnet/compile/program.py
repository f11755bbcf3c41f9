"""What the compiler hands over: models, and what each of their inputs and outputs means."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from kdnet.errors import Span
from kdnet.layers import LabelCheck, Stored
from kdnet.schema import kdnet_pb2 as pb

RATE = "scalar/lr"
LOSS = "total/loss"
EXPLICIT_FILLERS = ("constant", "bilinear")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class WeightSlot:
    """A weight blob of the net: where it belongs, how it starts, how it is trained.

    ``role`` is "trained" (a solver updates it), "state" (its layer does) or "frozen" (nobody).
    ``users`` are the (layer, blob index) pairs that share it by name, the owner first, and
    ``user_shapes`` the shape in which each of them sees it. ``stored`` is its first value, where
    the layer brings one. ``filler_span`` is where the filler's type is written, if it is.
    """

    name: str
    layer: str
    layer_type: str
    index: int
    shape: Shape
    filler: pb.FillerParameter
    lr_mult: float
    role: str
    span: Span | None
    users: tuple[tuple[str, int], ...]
    user_shapes: tuple[Shape, ...]
    stored: Stored | None = None
    filler_span: Span | None = None

    @property
    def needs_file(self) -> bool:
        """Whether it is frozen and the prototxt does not itself say what it holds."""
        written = self.filler.HasField("type") and self.filler.type in EXPLICIT_FILLERS
        known = written or self.stored is not None
        return self.role == "frozen" and self.lr_mult == 0 and not known


@dataclass(frozen=True)
class StateSlot:
    """An input whose next value is an output."""

    name: str
    following: str
    shape: Shape


@dataclass(frozen=True)
class NoiseSlot:
    """An input of uniform numbers in [0, 1), keyed on (seed, layer, iteration, micro-step).

    ``seed`` is the run's where it is None.
    """

    name: str
    layer: str
    shape: Shape
    seed: int | None = None


@dataclass(frozen=True)
class ScalarSlot:
    """An input of one number: a scheduled number of a layer."""

    name: str
    layer: str
    field: str


@dataclass(frozen=True)
class SinkSlot:
    """A file that takes two outputs of every run: a layer's data and labels."""

    layer: str
    file: str
    outputs: tuple[str, str]
    shapes: tuple[Shape, Shape]
    span: Span | None


@dataclass(frozen=True)
class Report:
    """A blob that no layer reads, as Caffe's log prints it; ``loss_weight`` 0 for no loss.

    ``scheduled`` is the scalar input that carries the loss weight, where one does.
    """

    blob: str
    output: str
    shape: Shape
    loss_weight: float
    layer: str
    span: Span | None
    scheduled: str = ""


@dataclass(frozen=True)
class Program:
    """One model and the meaning of its inputs and outputs.

    Inputs are ``data`` (fed from sources), ``hosted`` (made by Python layers), ``noise``,
    ``reads`` (values bound and left alone), ``state`` (bound, and replaced by their following
    value), the learning rate ``RATE`` and other ``scalars``. Outputs are the following state,
    ``reports``, the total loss, and ``watched``: whatever else was asked for, by name; ``sinks``
    are files that some of these are written to.
    ``frozen`` weights are declared in the model and handed to the session. ``loss_span`` is where
    the first loss stands.
    """

    model: onnx.ModelProto
    data: dict[str, Shape] = field(default_factory=dict)
    hosted: dict[str, Shape] = field(default_factory=dict)
    noise: tuple[NoiseSlot, ...] = ()
    reads: tuple[str, ...] = ()
    state: tuple[StateSlot, ...] = ()
    frozen: tuple[str, ...] = ()
    reports: tuple[Report, ...] = ()
    watched: dict[str, Shape] = field(default_factory=dict)
    sinks: tuple[SinkSlot, ...] = ()
    labels: tuple[LabelCheck, ...] = ()
    scalars: tuple[ScalarSlot, ...] = ()
    has_rate: bool = False
    has_loss: bool = False
    loss_span: Span | None = None
