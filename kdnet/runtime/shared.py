"""Weights in arrays that a program reads and writes between runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.runtime.device import Device
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]


class SharedBuffers(StateBuffers):
    """State that lives in the caller's own arrays.

    On the CPU a run reads the arrays themselves, so what was written into them counts at once;
    on CUDA :meth:`push` sends them there. New state is copied back into them after a run.

    Args:
        device: where the programs run.
        arrays: contiguous float32 arrays by name.
        side: tells the bindings of several such buffers in one engine apart.
    """

    def __init__(self, device: Device, arrays: Mapping[str, Array], side: int = 0) -> None:
        super().__init__(device, {})
        self._arrays = dict(arrays)
        self._side = side
        self._current = {name: self._shared(array) for name, array in self._arrays.items()}
        self._following: dict[str, Any] = {}

    def _shared(self, array: Array) -> Any:
        kind, index = self._device.kind, self._device.index
        return self._ort.OrtValue.ortvalue_from_numpy(array, kind, index)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def current(self, name: str) -> Any:
        """What the next run reads."""
        return self._current[name]

    def other(self, name: str) -> Any:
        """What the next run writes."""
        if name not in self._following:
            self._following[name] = self._shared(np.zeros_like(self._arrays[name]))
        return self._following[name]

    def sides(self, names: Iterable[str]) -> tuple[int, ...]:
        """Always the same: nothing is swapped."""
        del names
        return (self._side,)

    def flip(self, names: Iterable[str]) -> None:
        """Copy what a run wrote into the arrays."""
        for name in names:
            self.write(name, self._following[name].numpy())

    def read(self, name: str) -> Array:
        """A copy of the current content."""
        return self._arrays[name].copy()

    def write(self, name: str, array: Array) -> None:
        """Replace the current content."""
        self._arrays[name][...] = array
        self.push([name])

    def push(self, names: Iterable[str]) -> None:
        """Make a run see what was written into the arrays."""
        if self._device.kind != "cpu":
            for name in names:
                self._current[name].update_inplace(self._arrays[name])
