"""The blobs that a layer's Python code reads and writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Shaped(ABC):
    """What a blob tells of its shape, in pycaffe's words."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The extents."""

    @property
    def count(self) -> int:
        """The number of values."""
        return prod(self.shape)

    @property
    def num(self) -> int:
        """Axis 0 of the legacy four; axes that there are not have extent 1."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """Axis 1 of the legacy four."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """Axis 2 of the legacy four."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """Axis 3 of the legacy four."""
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise ValueError(f"a blob of shape {self.shape} has no num, channels, height, width")
        return self.shape[axis] if axis < len(self.shape) else 1


def wanted_shape(shape: tuple[Any, ...], least: int) -> tuple[int, ...]:
    """The extents that ``reshape`` was given, one by one or as one sequence.

    Raises:
        ValueError: one of them is below ``least``.
    """
    if len(shape) == 1 and not isinstance(shape[0], int | np.integer):
        shape = tuple(shape[0])
    wanted = tuple(int(extent) for extent in shape)
    if min(wanted, default=least) < least:
        raise ValueError(f"the shape {wanted} has an extent below {least}")
    return wanted


class Blob(Shaped):
    """A blob's values and gradients: float32 arrays that code writes into, as in pycaffe.

    Attributes:
        data: the values.
        diff: the gradients.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.data: Floats = np.zeros(shape, np.float32)
        self.diff: Floats = np.zeros(shape, np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""
        return self.data.shape

    def reshape(self, *shape: Any) -> None:
        """Change the shape, given one by one or as one sequence; new arrays hold zeros.

        Raises:
            ValueError: an extent is below 0.
        """
        wanted = wanted_shape(shape, 0)
        if wanted != self.shape:
            self.data = np.zeros(wanted, np.float32)
            self.diff = np.zeros(wanted, np.float32)


class Blobs(list[Blob]):
    """The weights of a layer, in order."""

    def add_blob(self, *shape: int) -> None:
        """Add a weight of zeros, which the layer may fill.

        Raises:
            ValueError: an extent is below 1.
        """
        if min(shape, default=1) < 1:
            raise ValueError(f"a weight of shape {shape} has an extent below 1")
        self.append(Blob(tuple(int(extent) for extent in shape)))
