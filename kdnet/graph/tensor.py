"""Tensors and ops: the two values a graph is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named value with a static shape; compared by identity, so it can key a dict.

    ``value`` holds the array of a constant and is None for inputs and op outputs.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    value: np.ndarray[Any, np.dtype[Any]] | None = field(default=None, repr=False)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether a gradient can flow into it."""
        return np.issubdtype(self.dtype, np.floating)


@dataclass(frozen=True, eq=False)
class Op:
    """One ONNX node. ``rule`` names its gradient rule where that is not the op type's own.

    ``source`` is the prototxt position it came from, as ``file:line:column`` or empty.
    """

    type: str
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attrs: Mapping[str, Any]
    source: str = ""
    rule: str = ""

    def input(self, index: int) -> Tensor:
        """The input at ``index``, which the op type requires."""
        found = self.inputs[index]
        if found is None:
            raise IndexError(f"{self.name}: input {index} is absent")
        return found

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]
