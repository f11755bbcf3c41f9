"""Steps by the net's own passes, for nets and programs that one graph would not do for.

That is Caffe's way: forward, backward, and then the update, a program of its own. A net with
Python layers steps so, whose shapes may change, and so does a solver whose program is called in
between or has the weights updated itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.api.net import Net
from kdnet.compile import Program
from kdnet.compile.program import LOSS, RATE
from kdnet.runtime import Run, Stepper
from kdnet.runtime.engine import Engine
from kdnet.runtime.shared import SharedBuffers

Array = NDArray[Any]
Feeds = Callable[[int], Mapping[str, Array]]
Call = Callable[[], object]


@dataclass
class StepCalls:
    """What a program has called in every step: before the passes, and before the update."""

    on_start: list[Call] = field(default_factory=list)
    on_gradients_ready: list[Call] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.on_start or self.on_gradients_ready)


class HandStepper(Stepper):
    """Takes the steps of a solver whose state is its net's own arrays.

    Args:
        run: what to train; its gradients and its update are programs apart.
        net: the train net.
        calls: what to call in each step.
        history: solver history by input name; zeros where it has none.
    """

    def __init__(  # not that of a Stepper, which opens the session of a whole step
        self, run: Run, net: Net, calls: StepCalls, history: Mapping[str, Array]
    ) -> None:
        if run.training.update is None:
            raise ValueError("the update is no program of its own")
        self.training = run.training
        self.iteration = 0
        self._net, self._calls, self._device = net, calls, run.device
        self._every = range(len(net.model.layers))
        values = net._weights.values
        self._history = {
            name: np.array(history.get(name, np.zeros_like(values[weight])), np.float32)
            for name, weight in run.training.histories.items()
        }
        self._update_engine = Engine(run.training.update, run.device, values)
        self._bound = 0
        self._bind()

    def _bind(self) -> None:
        """Take the net's arrays as they are now: other nets' may have become its own."""
        weights = self._net._weights
        self._replaced = weights.replaced
        sums = {
            slot.name: weights.slopes[slot.name.removeprefix("accumulated/")]
            for slot in self.training.accumulators
        }
        live = {name: weights.values[name] for name in self.training.live}
        self._bound += 1
        arrays = {**live, **self._history, **sums}
        self.buffers = self._shared = SharedBuffers(self._device, arrays, self._bound)

    @property
    def feeding(self) -> Program:
        """What a batch would feed, if the net did not read its data itself."""
        return self.training.main

    def step(
        self, rate: float, feeds: Feeds, scheduled: Mapping[str, float] | None = None
    ) -> dict[str, Array]:
        """One update, as :meth:`Stepper.step`; the net reads its data itself."""
        del feeds
        passes, size = self._net._passes, self.training.iter_size
        for call in self._calls.on_start:
            call()
        passes.clear_slopes()
        values, total = {}, 0.0
        for micro in range(size):
            values = self._forward(micro, scheduled)
            passes.backward(self._every[-1], 0, ())
            total += float(values[LOSS])
        for call in self._calls.on_gradients_ready:
            call()
        self.update(rate, scheduled)
        values[LOSS] = np.array(total / size, np.float32)
        return values

    def look(
        self, feeds: Mapping[str, Array], scheduled: Mapping[str, float] | None = None
    ) -> dict[str, Array]:
        """The reports of the net's next batch."""
        del feeds
        return self._forward(0, scheduled)

    def update(self, rate: float, scheduled: Mapping[str, float] | None = None) -> None:
        """Let the solver's rule change the weights by the gradients that are there."""
        if self._replaced != self._net._weights.replaced:
            self._bind()
        program = self._update_engine.program
        self._shared.push([*program.reads, *(slot.name for slot in program.state)])
        self._update_engine.run(self.buffers, {}, {RATE: rate, **(scheduled or {})})

    def _forward(self, micro: int, scheduled: Mapping[str, float] | None) -> dict[str, Array]:
        net, main = self._net, self.training.main
        passes = net._passes
        passes.scalars = dict(scheduled or {})
        passes.forward(self._every, (self.iteration, micro))
        found = {report.output: net.blobs[report.blob].held.copy() for report in main.reports}
        for report in main.reports:
            if report.scheduled:
                net.blobs[report.blob].slope[...] = passes.scalars[report.scheduled]
        bottoms = net.bottom_names
        for sink in main.sinks:
            found |= {
                output: net.blobs[blob].held.copy()
                for output, blob in zip(sink.outputs, bottoms[sink.layer], strict=True)
            }
        return {**found, LOSS: np.array(passes.loss, np.float32)}

    def weights(self) -> dict[str, Array]:
        """Every weight's present value by name."""
        values = self._net._weights.values
        return {slot.name: values[slot.name].copy() for slot in self.training.weights}
