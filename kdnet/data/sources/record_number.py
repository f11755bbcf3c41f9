"""RecordNumber: the numbers of the records that another data layer shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdnet.data.cache import Rows
from kdnet.data.datum import Shape
from kdnet.data.items import check_tops
from kdnet.data.located import refuse
from kdnet.data.source import Floats, Source, source
from kdnet.errors import did_you_mean
from kdnet.net import LayerModel

# float32 counts up to here without a gap.
COUNTABLE = 1 << 24

_AT = ("record_number_param", "of")


@source("RecordNumber")
class RecordNumber(Source):
    """Record numbers, in the order in which another data layer shows its records.

    Parameters: of (the only data layer above); batch_size (of that layer).
    Differs from Caffe: the layer is kdnet's own.
    Faults: no-numbered-layer, item-shape.
    """

    follows = True

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        check_tops(layer, 1, 1)
        self._of: Source | None = None

    def attach(self, siblings: Mapping[str, Source]) -> None:
        """Find the data layer whose records are numbered.

        Raises:
            DataError: no-numbered-layer.
        """
        known = {name: s for name, s in siblings.items() if not s.follows}
        name = self.layer.message.record_number_param.of
        name = name if name or len(known) != 1 else next(iter(known))
        if name not in known:
            what = f'there is no data layer "{name}"' if name else "of is not given"
            hint = did_you_mean(name, known) or (f"data layers are {', '.join(known) or 'none'}",)
            refuse(self.layer, "no-numbered-layer", what, *_AT, help=hint)
        found, count = known[name], known[name].record_count
        if count is None:
            text = f'layer "{name}" shows no records that could be numbered: {found.varies}'
            refuse(self.layer, "no-numbered-layer", text, *_AT)
        if count > COUNTABLE:
            text = f'layer "{name}" has {count} records; float32 numbers {COUNTABLE}'
            refuse(self.layer, "no-numbered-layer", text, *_AT)
        size = len(found.records(0))
        stated = self.layer.message.record_number_param.batch_size
        if stated not in (0, size):
            text = f'batch_size is {stated}, but layer "{name}" has batches of {size}'
            refuse(self.layer, "item-shape", text, "record_number_param", "batch_size")
        self._of = found

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shape when batch_size is stated."""
        del shape
        size = layer.message.record_number_param.batch_size
        return ((size,),) if size else None

    @property
    def numbered(self) -> Source:
        """The data layer whose records are numbered.

        Raises:
            DataError: no-numbered-layer: nothing is attached.
        """
        if self._of is None:
            text = "it numbers the records of a data layer, and there is none here"
            refuse(self.layer, "no-numbered-layer", text, *_AT)
        return self._of

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(N)."""
        return ((len(self.records(0)),),)

    @property
    def record_count(self) -> int | None:
        """As many as are numbered."""
        return self.numbered.record_count

    @property
    def varies(self) -> str:
        """A record keeps its number."""
        return ""

    def records(self, index: int) -> Rows:
        """The records of batch ``index`` of the numbered layer."""
        return self.numbered.records(index)

    def identity(self) -> dict[str, str]:
        """A record's number is decided by nothing else."""
        return {"type": self.layer.type}

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Their numbers."""
        return (self.records(index).astype(np.float32),)
