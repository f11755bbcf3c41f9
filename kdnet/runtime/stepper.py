"""Takes training steps on arrays: the engines, and the state between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Program, Training
from kdnet.compile.program import LOSS, RATE
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.hosted import open_engine
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]
Feeds = Mapping[str, Array]


class Stepper:
    """A compiled training run with its state on a device; it knows no data source and no log.

    Args:
        training: what to run.
        device: where.
        values: every weight's first value by name.
        history: solver history by input name; zeros where it has none.
        threads: intra-op threads; 0 for all processors that the process may use.
    """

    def __init__(
        self,
        training: Training,
        device: Device,
        values: Mapping[str, Array],
        history: Mapping[str, Array] | None = None,
        threads: int = 0,
    ) -> None:
        self.training = training
        self._values = values
        self.buffers = StateBuffers(device, self._first_state(history or {}))
        self._main = open_engine(training.main, training.hosted, device, values, threads)
        self._update = (
            Engine(training.update, device, values, threads) if training.update else None
        )

    def _first_state(self, history: Mapping[str, Array]) -> dict[str, Array]:
        state = {name: self._values[name] for name in self.training.live}
        for name, weight in self.training.histories.items():
            state[name] = history.get(name, np.zeros_like(self._values[weight]))
        for slot in self.training.accumulators:
            state[slot.name] = np.zeros(slot.shape, np.float32)
        return state

    def step(
        self,
        rate: float,
        feeds: Callable[[int], Feeds],
        scheduled: Mapping[str, float] | None = None,
    ) -> dict[str, Array]:
        """One update.

        Args:
            rate: the learning rate.
            feeds: gives data and noise by input name, for each micro-step in turn.
            scheduled: the scheduled numbers by input name.

        Returns:
            The reports of the last micro-step by output name, and under ``LOSS`` the total loss
            averaged over all.
        """
        size = self.training.iter_size
        total = 0.0
        for slot in self.training.accumulators:
            self.buffers.write(slot.name, np.zeros(slot.shape, np.float32))
        scalars = {RATE: rate, **(scheduled or {})}
        values: dict[str, Array] = {}
        for micro in range(size):
            values = self._main.run(self.buffers, feeds(micro), scalars)
            total += float(values[LOSS])
        if self._update is not None:
            self._update.run(self.buffers, {}, scalars)
        values[LOSS] = np.array(total / size, np.float32)
        return values

    @property
    def feeding(self) -> Program:
        """What a batch must feed."""
        return self._main.feeding

    def look(self, feeds: Feeds, scheduled: Mapping[str, float] | None = None) -> dict[str, Array]:
        """The reports of a batch, with the state left as it is."""
        return self._main.run(self.buffers, feeds, scheduled, keep=False)

    def weights(self) -> dict[str, Array]:
        """Every weight's present value by name."""
        return {
            slot.name: self.buffers.read(slot.name)
            if slot.name in self.training.live
            else self._values[slot.name]
            for slot in self.training.weights
        }

    def history(self) -> dict[str, Array]:
        """The solver's history by input name."""
        return {name: self.buffers.read(name) for name in self.training.histories}
