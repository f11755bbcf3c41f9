"""RecordNumber: a data layer that numbers the records of another."""

from __future__ import annotations

from collections.abc import Sequence

from kdnet.layers.base import DataLayer, layer


@layer("RecordNumber", params="record_number_param", bottoms=0)
class RecordNumber(DataLayer):
    """Say which record each item of another layer's batch is.

        y[n] = r[n],  r[n] the record that item n of the batch is, from 0

    whatever order the records come in: what ContrastiveRepresentation reads beside shuffled data.

    Shapes:
        y  (N)  top 0; N is the batch size of the data layer
    Parameters: of (the only data layer above); batch_size (of that layer)
    Gradient: none; nothing lies before it.
    Differs from Caffe: the layer is kdnet's own.
    Faults: of names no data layer above; that layer has no records, or more than 16777216, or
        another batch size.
    Source: none.
    """

    def top_shapes(self) -> Sequence[tuple[int, ...]]:
        """The batch size of the numbered layer, or the stated one."""
        known, name = self.trace.batch_sizes, self.params.of
        if self.params.batch_size:
            return [(self.params.batch_size,)]
        if not name and len(known) == 1:
            return [(next(iter(known.values())),)]
        self.require(
            name in known,
            at="of",
            say=f'no data layer "{name}" stands above' if name else "must be given",
            help=f"data layers above are {', '.join(known) or 'none'}",
        )
        return [(known[name],)]
