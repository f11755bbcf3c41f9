"""Blobs as a program sees them: arrays of values and of gradients."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdnet.errors import did_you_mean
from kdnet.layers.python import Shaped, wanted_shape

Floats = NDArray[np.float32]
Hook = Callable[[], None]
T = TypeVar("T")


class Named(OrderedDict[str, T]):
    """Things by name; a wrong name is answered with the nearest one."""

    def __init__(self, items: Iterable[tuple[str, T]] = (), what: str = "entry") -> None:
        super().__init__(items)
        self._what = what

    def __missing__(self, name: str) -> T:
        hint = "".join(f"; {text}" for text in did_you_mean(str(name), self))
        raise KeyError(f'the net has no {self._what} "{name}"{hint}')


class Blob(Shaped):
    """A blob's values and gradients, each a float32 array that stays the same one.

    ``data`` and ``diff`` are the arrays themselves: a later run writes into them and reads what
    was written into them. Only :meth:`reshape`, or a net that changes the shape, makes new ones.
    """

    def __init__(self, shape: tuple[int, ...], slope: float = 0.0) -> None:
        self._data: Floats = np.zeros(shape, np.float32)
        self._diff: Floats | None = None
        self._slope = slope
        self.before_data: Hook | None = None
        self.before_diff: Hook | None = None

    @property
    def data(self) -> Floats:
        """The values."""
        if self.before_data is not None:
            self.before_data()
        return self._data

    @data.setter
    def data(self, values: ArrayLike) -> None:
        self.data[...] = values

    @property
    def diff(self) -> Floats:
        """The gradient; before a backward pass it is the loss weight, 0 for most blobs."""
        if self.before_diff is not None:
            self.before_diff()
        return self.slope

    @diff.setter
    def diff(self, values: ArrayLike) -> None:
        self.diff[...] = values

    @property
    def loss_weight(self) -> float:
        """What the blob counts in the loss; 0 for most."""
        return self._slope

    @property
    def held(self) -> Floats:
        """The values as they lie there: nothing is computed anew."""
        return self._data

    @property
    def has_slope(self) -> bool:
        """Whether the gradient is not 0."""
        return bool(self._slope if self._diff is None else self._diff.any())

    @property
    def slope(self) -> Floats:
        """The gradient as it lies there."""
        if self._diff is None:
            self._diff = np.full(self._data.shape, self._slope, np.float32)
        return self._diff

    def fill(self, values: Floats) -> None:
        """Take over values with their shape."""
        self.reshape(values.shape)
        self._data[...] = values

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""
        return self._data.shape

    def reshape(self, *shape: Any) -> None:
        """Change the shape; as many values as fit are kept, new ones are 0.

        Args:
            shape: the extents, one by one or as one sequence.
        """
        wanted = wanted_shape(shape, 1)
        if wanted != self.shape:
            self._resize(wanted)

    def _resize(self, shape: tuple[int, ...]) -> None:
        kept = self._data.reshape(-1)[: prod(shape)]
        self._data = np.zeros(shape, np.float32)
        self._data.reshape(-1)[: kept.size] = kept
        self._diff = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape}>"


class Parameter(Blob):
    """A weight of a layer; layers that share it by name share its arrays."""

    def __init__(self, data: Floats, diff: Floats) -> None:
        super().__init__((), 0.0)
        self._data, self._diff = data, diff

    def reshape(self, *shape: Any) -> None:
        """Refuse: the layer decides the shape of its weights."""
        text = f"a weight keeps its shape {self.shape}, which its layer decides"
        raise ValueError(f"{text}: it cannot become {shape}")
