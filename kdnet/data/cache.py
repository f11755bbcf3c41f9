"""Rows read once and kept in memory, where all of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kdnet.weights.model import Array

LIMIT_BYTES = 256 * 2**20
_ENTRY_BYTES = 512

Rows = NDArray[np.int64]
Field = tuple[tuple[int, ...], DTypeLike]
"""Shape of one row of an array, and how it is stored."""


class RowCache:
    """Arrays of ``count`` rows that ``read`` brings on demand.

    Below :data:`LIMIT_BYTES` in all, a row is read only once; above, every time it is asked for.
    ``read(rows)`` returns one array a field, in the order of ``rows``.
    """

    def __init__(
        self,
        count: int,
        fields: Sequence[Field],
        read: Callable[[Rows], tuple[Array, ...]],
    ) -> None:
        self._read = read
        size = sum(count * prod(shape) * np.dtype(kind).itemsize for shape, kind in fields)
        self.keeps = size <= LIMIT_BYTES
        if self.keeps:
            self._known = np.zeros(count, bool)
            self._kept = tuple(np.empty((count, *shape), kind) for shape, kind in fields)

    def take(self, rows: Rows) -> tuple[Array, ...]:
        """The fields of ``rows``, each in an array of its own."""
        if not self.keeps:
            return self._read(rows)
        known = self._known[rows]
        if not known.all():
            missing = np.unique(rows[~known])
            for kept, fresh in zip(self._kept, self._read(missing), strict=True):
                kept[missing] = fresh
            self._known[missing] = True
        return tuple(kept[rows] for kept in self._kept)


class ItemCache:
    """Images of several shapes with their labels, which ``read`` brings one at a time.

    The first that come are kept, up to :data:`LIMIT_BYTES`; the others are read again and again.
    """

    def __init__(self, read: Callable[[int], tuple[Array, int]]) -> None:
        self._read = read
        self._room = LIMIT_BYTES
        self._kept: dict[int, tuple[Array, int]] = {}

    def take(self, row: int) -> tuple[Array, int]:
        """The image of ``row``, not to be changed, and its label."""
        found = self._kept.get(row)
        if found is None:
            found = self._read(row)
            size = found[0].nbytes + _ENTRY_BYTES
            if size <= self._room:
                self._room -= size
                self._kept[row] = found
        return found
