"""RecordNumber: the numbers of the records that another data layer shows."""

from __future__ import annotations

import numpy as np

from kdnet.data.datum import Shape
from kdnet.data.following import CODE, FollowingSource
from kdnet.data.items import check_tops
from kdnet.data.located import refuse
from kdnet.data.source import Floats, source
from kdnet.net import LayerModel

# float32 counts up to here without a gap.
COUNTABLE = 1 << 24


@source("RecordNumber")
class RecordNumber(FollowingSource):
    """Record numbers, in the order in which another data layer shows its records.

    Parameters: of (the only data layer above); batch_size (of that layer).
    Differs from Caffe: the layer is kdnet's own.
    Faults: no-followed-layer, item-shape.
    """

    params_field = "record_number_param"

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        check_tops(layer, 1, 1)

    def accept(self, name: str, count: int, batch_size: int) -> None:
        """No more records than float32 can count.

        Raises:
            DataError: no-followed-layer.
        """
        del batch_size
        if count > COUNTABLE:
            text = f'layer "{name}" has {count} records; float32 numbers {COUNTABLE}'
            refuse(self.layer, CODE, text, self.params_field, "of")

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shape when batch_size is stated."""
        del shape
        size = layer.message.record_number_param.batch_size
        return ((size,),) if size else None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(N)."""
        return ((len(self.records(0)),),)

    def identity(self) -> dict[str, str]:
        """A record's number is decided by nothing else."""
        return {"type": self.layer.type}

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Their numbers."""
        return (self.records(index).astype(np.float32),)
