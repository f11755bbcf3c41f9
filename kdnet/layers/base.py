"""What a layer states: its arity, its weights, its checks and its forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.errors import Diagnostic, LayerError, Span
from kdnet.graph import Emitter, Tensor
from kdnet.layers.kept import Kept
from kdnet.layers.registry import register
from kdnet.layers.trace import LabelCheck, Noise, Trace
from kdnet.net import LayerModel, ParamModel
from kdnet.schema import kdnet_pb2 as pb

ANY = 1 << 16
Arity = int | tuple[int, int]
Emitted = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Stored:
    """A first value that the layer's own file holds; ``read`` gives it in the weight's shape."""

    file: str
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Weight:
    """A blob that a layer owns.

    ``state`` marks blobs that the layer itself updates in TRAIN phase and no solver touches.
    ``stored`` is what it holds at first where no weight file fills the layer, instead of a filler.
    ``borrowed`` marks blobs of an earlier layer, shared by their param name, that it only reads.
    """

    name: str
    shape: tuple[int, ...]
    filler: pb.FillerParameter = field(default_factory=pb.FillerParameter)
    state: bool = False
    stored: Stored | None = None
    borrowed: bool = False


class Layer(ABC):
    """A layer of one net, ready to emit.

    A subclass gives ``emit`` and, where it has them, ``weights`` and ``check``. It never writes
    a shape or a gradient: the emitter infers the one and the op rules give the other.

    ``roles`` says what each bottom of a loss or a metric is, the last one for all that follow:
    "logits", "probabilities" or "binary logits" of a classifier, "label", "target", "values",
    "student" and "teacher" (features), "student logits" and "teacher logits", "record" (numbers).
    ``kept`` says which items of the bottoms are there, where a Filter came before.
    """

    type: ClassVar[str]
    params_field: ClassVar[str] = ""
    bottoms: ClassVar[Arity] = 1
    tops: ClassVar[Arity] = 1
    is_loss: ClassVar[bool] = False
    is_metric: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ()
    kept: Kept | None = None

    def __init__(self, model: LayerModel, trace: Trace) -> None:
        self.model = model
        self.trace = trace
        self.params: Any = getattr(model.message, self.params_field) if self.params_field else None

    @property
    def train(self) -> bool:
        """Whether the layer runs in TRAIN phase; a teacher in a TRAIN net may say TEST."""
        return self.model.phase == pb.TRAIN

    # The open signatures let a subclass name its bottoms: ``check(self, x)``.
    def weights(self, *_bottoms: Any, **_none: Any) -> list[Weight]:
        """The blobs it owns, in Caffe's order, given its bottoms."""
        return []

    def check(self, *_bottoms: Any, **_none: Any) -> None:
        """Raise a located error for parameters or bottoms that do not fit."""
        return

    @abstractmethod
    def emit(self, g: Emitter, *_inputs: Any, **_none: Any) -> Emitted:
        """Emit the forward pass of the bottoms, then the weights; return the tops."""

    def span(self, at: str = "") -> Span | None:
        """Where a parameter stands, else the parameter message, else the layer."""
        path = (self.params_field, *at.split(".")) if at else (self.params_field,)
        steps = tuple(int(step) if step.isdigit() else step for step in path if step)
        return self.model.source.span(steps)

    def require(self, ok: bool, *, at: str, say: str, help: str = "") -> None:  # noqa: FBT001  # reads as a sentence
        """Unless ``ok``, raise bad-parameter at the parameter ``at`` (``pad.0`` if repeated)."""
        if not ok:
            self.fail("bad-parameter", f"{at}: {say}", self.span(at), help)

    def require_shape(self, ok: bool, *, bottom: int, say: str, help: str = "") -> None:  # noqa: FBT001  # reads as a sentence
        """Unless ``ok``, raise shape-mismatch at a bottom."""
        if not ok:
            self.fail("shape-mismatch", say, self.model.source.span(("bottom", bottom)), help)

    def fail(self, code: str, text: str, span: Span | None, hint: str = "") -> NoReturn:
        """Raise a located error that names the layer."""
        message = f'layer "{self.model.name}" ({self.model.type}): {text}'
        raise LayerError(Diagnostic(code, message, span, help=(hint,) if hint else ()))

    def axis(self, x: Tensor, axis: int, *, at: str = "axis", end: bool = False) -> int:
        """A possibly negative axis as an index; ``end`` also allows one past the last."""
        limit = x.rank + int(end)
        fits = -x.rank <= axis < limit
        self.require(fits, at=at, say=f"{axis} is outside the bottom's shape {x.shape}")
        return axis % x.rank if axis < 0 else axis

    def noise(self, g: Emitter, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), an input of the step, so that runs repeat exactly."""
        tensor = g.input(f"noise/{self.model.name}", shape, np.float32)
        self.trace.noise.append(Noise(tensor, self.model.name))
        return g.cast(tensor)

    def scalar(self, g: Emitter, name: str) -> Tensor:
        """A number among the parameters: an input where the solver schedules it, else constant."""
        self.trace.asked.setdefault(self.model.name, []).append(name)
        if (self.model.name, name) in self.trace.scheduled:
            return self.trace.scalar(g, self.model.name, name)
        return g.constant(getattr(self.params, name))

    @classmethod
    def roles_in(cls, count: int) -> tuple[str, ...]:
        """What each of ``count`` bottoms is to a loss or a metric; "" for other layers."""
        last = cls.roles[-1] if cls.roles else ""
        return (*cls.roles, *[last] * count)[:count]

    def role(self, bottom: int) -> str:
        """What a bottom is to a loss or a metric; "" for other layers."""
        return self.roles_in(len(self.model.bottoms))[bottom]

    @property
    def label_bottom(self) -> int:
        """The bottom that holds labels, by its role; 0 where there is none."""
        bottoms = range(len(self.model.bottoms))
        return next((i for i in bottoms if self.role(i) == "label"), 0)

    def param(self, index: int) -> ParamModel:
        """How weight ``index`` is trained: as its own ``param`` says, Caffe's rule."""
        return self.model.param(index)

    def update(self, weight: Tensor, value: Tensor) -> None:
        """Let ``value`` be the state blob's content at the next step."""
        self.trace.updates[weight] = value

    def expect_labels(self, labels: Tensor, classes: int, ignore: int | None = None) -> None:
        """Have labels checked on the host when they are fed."""
        span = self.model.source.span(("bottom", self.label_bottom))
        self.trace.labels.append(LabelCheck(labels, self.model.name, classes, ignore, span))


class DataLayer(Layer):
    """A layer whose tops are fed from outside: each is an input of the step."""

    bottoms = 0
    tops: ClassVar[Arity] = (1, ANY)

    @abstractmethod
    def top_shapes(self) -> Sequence[tuple[int, ...]]:
        """The shape of each top, batch axis included."""

    def emit(self, g: Emitter) -> Emitted:
        """Declare an input of the step for each top."""
        found = []
        for name, shape in zip(self.model.tops, self.top_shapes(), strict=True):
            found.append(self.trace.data.setdefault(name, g.input(name, shape)))
        return tuple(found)


def layer(
    type_name: str, *, params: str = "", bottoms: Arity = 1, tops: Arity = 1
) -> Callable[[type[Layer]], type[Layer]]:
    """Register a layer class under its Caffe type; an arity is a count or an inclusive range."""

    def register_class(cls: type[Layer]) -> type[Layer]:
        cls.type, cls.params_field = type_name, params
        cls.bottoms, cls.tops = bottoms, tops
        register(type_name, cls)
        return cls

    return register_class
