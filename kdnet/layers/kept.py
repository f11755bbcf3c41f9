"""What a Filter lets through: the first items of a batch of fixed size, and how many they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdnet.graph import Emitter, Tensor


@dataclass(frozen=True)
class Kept:
    """``count`` of ``items`` were kept and come first; the others repeat one of them.

    ``selector`` is what was chosen by: blobs with the same one have their items in one order.
    """

    selector: Tensor
    count: Tensor
    items: int

    def there(self, g: Emitter, rank: int) -> Tensor:
        """Bool (items, 1, ...): whether an item is one that was kept."""
        numbers = np.arange(self.items).reshape(-1, *[1] * (rank - 1))
        return g.less(g.constant(numbers, self.count.dtype), self.count)


def of_kept(g: Emitter, terms: Tensor, kept: Kept | None) -> Tensor:
    """The terms of the items that are there, and 0 for the others."""
    return terms if kept is None else g.where(kept.there(g, terms.rank), terms, 0.0)


def left_out(g: Emitter, ignored: Tensor | None, kept: Kept | None) -> Tensor | None:
    """Where a term is not counted: ignored, or of an item that is not there."""
    if ignored is None or kept is None:
        return ignored
    return g.op("Or", ignored, g.op("Not", kept.there(g, ignored.rank)))


def per_item(g: Emitter, total: Tensor, factor: float, items: int, kept: Kept | None) -> Tensor:
    """``factor · total / items`` by the items that are there; by 1 where there are none.

    ``items`` counts places, some for each item of the batch.
    """
    if kept is None:
        return g.mul(total, factor / items)
    share = g.mul(g.maximum(kept.count, 1.0), items / kept.items)
    return g.div(g.mul(total, factor), share)
