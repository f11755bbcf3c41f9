"""State between steps: two buffers for each tensor, since a step must not write what it reads.

Binding an output to its own input's buffer races inside a run: a weight is overwritten before
another node's backward has read it, and the losses are silently wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.runtime.device import Device, onnxruntime

Array = NDArray[Any]


class StateBuffers:
    """Named device tensors in pairs, of which one side is current."""

    def __init__(self, device: Device, arrays: Mapping[str, Array]) -> None:
        self._device = device
        self._ort = onnxruntime()
        self._pairs = {name: (self._new(a), self._new(a)) for name, a in arrays.items()}
        self._sides = dict.fromkeys(self._pairs, 0)

    def _new(self, array: Array) -> Any:
        # A copy, since on the CPU the OrtValue would share the caller's memory.
        copy = np.array(array, np.float32, order="C", copy=True)
        kind, index = self._device.kind, self._device.index
        return self._ort.OrtValue.ortvalue_from_numpy(copy, kind, index)

    def __contains__(self, name: str) -> bool:
        return name in self._pairs

    def current(self, name: str) -> Any:
        """The side that the next run reads."""
        return self._pairs[name][self._sides[name]]

    def other(self, name: str) -> Any:
        """The side that the next run writes."""
        return self._pairs[name][1 - self._sides[name]]

    def sides(self, names: Iterable[str]) -> tuple[int, ...]:
        """Which side of each is current: the key of a binding."""
        return tuple(self._sides[name] for name in names)

    def flip(self, names: Iterable[str]) -> None:
        """What a run wrote becomes current."""
        for name in names:
            self._sides[name] = 1 - self._sides[name]

    def read(self, name: str) -> Array:
        """A copy of the current content."""
        return np.array(self.current(name).numpy(), copy=True)

    def write(self, name: str, array: Array) -> None:
        """Replace the current content."""
        value = np.ascontiguousarray(array, np.float32)
        self.current(name).update_inplace(value)
