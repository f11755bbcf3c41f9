"""Which row an endless stream of rows shows at each position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kdnet.data.cache import Rows
from kdnet.net import LayerModel
from kdnet.weights import philox


def draw_key(layer: LayerModel) -> str:
    """Whose random numbers a data layer takes: its own, or those of the layer it agrees with."""
    return layer.message.transform_param.draws_of or layer.name


def permutation(count: int, seed: int, *key: str | int) -> Rows:
    """The rows 0 to ``count`` - 1 in the random order that belongs to ``(seed, *key)``.

    Uniform numbers are sorted: numpy keeps those for ever, but not its own shuffle.
    """
    return np.argsort(philox(seed, *key).random(count), kind="stable").astype(np.int64)


def below(limit: int, seed: int, *key: str | int) -> int:
    """A random integer from 0 to ``limit`` - 1; 0 when ``limit`` is 0."""
    return int(philox(seed, *key).random() * limit)


class Order:
    """The rows 0 to ``count`` - 1 over and over.

    Args:
        count: Rows of one pass, at least 1; kept as an attribute.
        skip: Rows left out before the first one.
        shuffle: The order of a pass, given its number from 0; None leaves every pass in order.
    """

    def __init__(
        self, count: int, *, skip: int = 0, shuffle: Callable[[int], Rows] | None = None
    ) -> None:
        self.count = count
        self._skip = skip
        self._shuffle = shuffle
        self._latest: dict[int, Rows] = {}

    def rows(self, index: int, size: int) -> Rows:
        """The rows of batch ``index``, when each batch has ``size``."""
        first = self._skip + index * size
        passes, rows = np.divmod(np.arange(first, first + size, dtype=np.int64), self.count)
        if self._shuffle is not None:
            for number in range(int(passes[0]), int(passes[-1]) + 1):
                if number not in self._latest:
                    self._latest = {number: self._shuffle(number)}
                here = passes == number
                rows[here] = self._latest[number][rows[here]]
        return rows
