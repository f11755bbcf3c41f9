"""What a timed net is fed, and how long each layer waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.data import Feeder, Source, open_source
from kdnet.layers import is_data
from kdnet.net import LayerModel, NetModel
from kdnet.runtime.feeding import DEPTH, check_labels
from kdnet.weights import philox

Array = NDArray[Any]
Shape = tuple[int, ...]


class TimedFeeds:
    """Feeds a program as training does; each data layer reads ahead in a thread of its own.

    An Input layer, which has no data, gets the same random numbers every time: labels that the
    net can take, and else numbers in [0, 1).

    Attributes:
        seconds: by the layer's index, how long it was waited for since :meth:`restart`: for a
            batch of a data layer, for the noise of another.
        stand_ins: the tops that get random numbers.
    """

    def __init__(
        self, net: NetModel, program: Program, seed: int, shapes: Mapping[str, Shape]
    ) -> None:
        self.seconds: dict[int, float] = {}
        self._program, self._seed = program, seed
        self._places = {layer.name: index for index, layer in enumerate(net.layers)}
        self._fixed: dict[int, dict[str, Array]] = {}
        self._sources: list[Source] = []
        self._feeders: dict[int, Feeder] = {}
        data = [(index, layer) for index, layer in enumerate(net.layers) if is_data(layer)]
        for index, layer in data:
            if layer.type == "Input" and layer.stand_in is None:
                self._fixed[index] = self._stand_ins(layer)
        read = [(index, layer) for index, layer in data if index not in self._fixed]
        self._open([layer for _, layer in read], shapes)
        for (index, _), source in zip(read, self._sources, strict=True):
            self._feeders[index] = Feeder([source], 0, DEPTH)

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """The tops that get random numbers."""
        return tuple(top for arrays in self._fixed.values() for top in arrays)

    def _open(self, layers: Sequence[LayerModel], shapes: Mapping[str, Shape]) -> None:
        for layer in layers:
            shape = shapes.get(layer.tops[0])
            self._sources.append(open_source(layer, seed=self._seed, shape=shape))
        for source in self._sources:
            source.attach({other.layer.name: other for other in self._sources})

    def _stand_ins(self, layer: LayerModel) -> dict[str, Array]:
        checks = {check.tensor.name: check.classes for check in self._program.labels}
        found: dict[str, Array] = {}
        for top in layer.tops:
            if top in self._program.data:
                stream = philox(self._seed, "made up", top)
                values = stream.random(self._program.data[top], np.float32)
                found[top] = np.floor(values * checks[top]) if top in checks else values
        return found

    def restart(self) -> None:
        """Forget how long was waited."""
        self.seconds = {}

    def next(self, iteration: int) -> dict[str, Array]:
        """The feeds of one run."""
        batch: dict[str, Array] = {}
        for index, arrays in self._fixed.items():
            with self._clocked(index):
                batch |= arrays
        for index, feeder in self._feeders.items():
            with self._clocked(index):
                batch |= feeder.next()
        for check in self._program.labels:
            check_labels(check, batch[check.tensor.name], iteration)
        feeds = {name: batch[name] for name in self._program.data}
        for slot in self._program.noise:
            with self._clocked(self._places[slot.layer]):
                stream = philox(self._seed, "noise", slot.layer, iteration, 0)
                feeds[slot.name] = stream.random(slot.shape, np.float32)
        return feeds

    @contextmanager
    def _clocked(self, index: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.seconds[index] = self.seconds.get(index, 0.0) + took

    def close(self) -> None:
        """Stop the threads and release the data."""
        for feeder in self._feeders.values():
            feeder.close()
        for source in self._sources:
            source.close()
