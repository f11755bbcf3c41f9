"""DummyData: tops filled with made-up values."""

from __future__ import annotations

from typing import TypeVar

from kdnet.data.datum import Shape
from kdnet.data.items import check_size
from kdnet.data.located import refuse, span_of
from kdnet.data.source import Floats, Source, source
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.fillers import check_filler, fill, is_random_filler

_PARAM = "dummy_data_param"
T = TypeVar("T")

_LEGACY = ("num", "channels", "height", "width")


@source("DummyData")
class DummyData(Source):
    """Each top filled by a filler: random ones anew for each batch, the others once.

    Parameters: shape, once or once a top, or the legacy num, channels, height, width likewise;
        data_filler: none (zeros), one for all tops, or one a top.
    Differs from Caffe: a batch's values belong to (seed, layer, top, batch index).
    Faults: dummy-shapes, dummy-fillers, unknown-filler, bad-filler, blob-too-large.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        self._shapes = _shapes(layer)
        self._fillers = _fillers(layer, self._shapes)
        self._constant: dict[int, Floats] = {}

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes that the parameters state."""
        del shape
        return _shapes(layer)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that the parameters state."""
        return self._shapes

    def batch(self, index: int) -> tuple[Floats, ...]:
        """The filled tops of batch ``index``."""
        return tuple(self._top(top, index) for top in range(len(self.tops)))

    def _top(self, top: int, index: int) -> Floats:
        filler = self._fillers[top]
        if is_random_filler(filler.type):
            key = f"{self.layer.name}/{top}/{index}"
            return fill(filler, self._shapes[top], seed=self.seed, key=key)
        if top not in self._constant:
            self._constant[top] = fill(filler, self._shapes[top], seed=self.seed, key="")
        return self._constant[top].copy()


def _shapes(layer: LayerModel) -> tuple[Shape, ...]:
    param = layer.message.dummy_data_param
    tops = len(layer.tops)
    legacy = [list(getattr(param, name)) for name in _LEGACY]
    if not any(legacy):
        shapes = _spread(layer, [tuple(shape.dim) for shape in param.shape], "shape")
    else:
        if param.shape:
            text = "shape and the legacy num, channels, height, width exclude each other"
            refuse(layer, "dummy-shapes", text, _PARAM, "shape", 0)
        sides = [_spread(layer, given, name) for name, given in zip(_LEGACY, legacy, strict=True)]
        shapes = tuple(zip(*sides, strict=True))
    for top in range(tops):
        if min(shapes[top], default=1) < 1:
            refuse(layer, "dummy-shapes", f"the shape {shapes[top]} is empty", _PARAM)
        check_size(layer, shapes[top])
    return shapes


def _spread(layer: LayerModel, given: list[T], name: str) -> tuple[T, ...]:
    """What was given once for all tops, or once for each, as one a top."""
    tops = len(layer.tops)
    if len(given) not in (1, tops) or not tops:
        text = f"{name} is given {len(given)} times for {tops} tops"
        hint = ("give it once, or once for each top",)
        refuse(layer, "dummy-shapes", text, _PARAM, name, 0, help=hint)
    return tuple(given * tops if len(given) == 1 else given)


def _fillers(layer: LayerModel, shapes: tuple[Shape, ...]) -> tuple[pb.FillerParameter, ...]:
    given = list(layer.message.dummy_data_param.data_filler)
    if len(given) not in (0, 1, len(shapes)):
        text = f"data_filler is given {len(given)} times for {len(shapes)} tops"
        hint = ("give it never, once, or once for each top",)
        refuse(layer, "dummy-fillers", text, _PARAM, "data_filler", 0, help=hint)
    spread = given or [pb.FillerParameter()]
    spread = spread * len(shapes) if len(spread) == 1 else spread
    for top, (filler, shape) in enumerate(zip(spread, shapes, strict=True)):
        at = top if len(given) > 1 else 0
        check_filler(filler, shape, span=span_of(layer, _PARAM, "data_filler", at))
    return tuple(spread)
