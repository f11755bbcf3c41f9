"""Input: tops that a program fills."""

from __future__ import annotations

from kdnet.data.datum import Shape
from kdnet.data.items import check_size
from kdnet.data.located import refuse
from kdnet.data.source import Floats, Source, source
from kdnet.net import LayerModel

_PARAM = "input_param"


@source("Input")
class Input(Source):
    """Tops of given shapes; there are no data, so a net that reads it cannot be trained.

    Parameters: shape, once or once a top; where none is given, the command line's, as a whole.
    Faults: input-shapes, input-without-data, blob-too-large.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        super().__init__(layer, seed=seed)
        self._shapes = _shapes(layer, shape)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes that the parameters state."""
        return _shapes(layer, shape)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that the parameters state."""
        return self._shapes

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Refuse: nobody gives an Input layer data here."""
        hint = ("give the net a layer that reads data: Data, HDF5Data, ImageData, MemoryData",)
        text = f"an Input layer has no data for batch {index}"
        refuse(self.layer, "input-without-data", text, help=hint)


def _shapes(layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...]:
    given = [tuple(found.dim) for found in layer.message.input_param.shape]
    if not given and shape is not None:
        given = [shape]
    if len(given) not in (1, len(layer.tops)) or not given:
        text = f"shape is given {len(given)} times for {len(layer.tops)} tops"
        hint = ("give it once, or once for each top",)
        refuse(layer, "input-shapes", text, _PARAM, "shape", 0, help=hint)
    shapes = tuple(given * len(layer.tops) if len(given) == 1 else given)
    for found in shapes:
        if min(found, default=1) < 1:
            refuse(layer, "input-shapes", f"the shape {found} is empty", _PARAM, "shape", 0)
        check_size(layer, found)
    return shapes
