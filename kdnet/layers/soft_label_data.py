"""SoftLabels: a data layer of answers to the records of another."""

from __future__ import annotations

from collections.abc import Sequence

from kdnet.layers.base import DataLayer, layer


@layer("SoftLabels", params="soft_labels_param", bottoms=0)
class SoftLabels(DataLayer):
    """Read what a teacher that is not there said of each record of a data layer.

        y[n] = answers[r[n]],  r[n] the record that item n of the batch is

    so the answers follow the records, whatever order they come in. With ``top_k`` the file holds k
    classes a record; what the others come to together is spread evenly over them.

    Shapes:
        y  (N, C)  top 0: logits, or probabilities; N is the batch size of the data layer
    Parameters: source, num_classes C (required); dataset ("logits"); of (the only data layer
        above); form (LOGITS), top_form (as form); top_k (0: all), floor; batch_size (of the layer)
    Gradient: none; nothing lies before it.
    Differs from Caffe: the layer is kdnet's own. ``kdnet data soft-labels`` writes such files.
    Faults: of names no data layer above; num_classes missing; those of the data source.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """

    def top_shapes(self) -> Sequence[tuple[int, ...]]:
        """The batch size of the answered layer, or the stated one, and the classes."""
        self.require(self.params.num_classes > 0, at="num_classes", say="must be positive")
        size = self.params.batch_size or self._batch_of(self.trace.batch_sizes)
        return [(size, self.params.num_classes)]

    def _batch_of(self, known: dict[str, int]) -> int:
        name = self.params.of
        if not name and len(known) == 1:
            return next(iter(known.values()))
        self.require(
            name in known,
            at="of",
            say=f'no data layer "{name}" stands above' if name else "must be given",
            help=f"data layers above are {', '.join(known) or 'none'}",
        )
        return known[name]
