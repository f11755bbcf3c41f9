"""Forward and backward passes over ranges of one net's layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from kdnet.api.blobs import Blob
from kdnet.api.engines import Engines, check_fed, draw_noise
from kdnet.api.segments import (
    Segment,
    backward_segment,
    forward_segment,
    outside_blobs,
    trace_range,
)
from kdnet.api.streams import Streams
from kdnet.api.weights import Weights
from kdnet.layers import is_data
from kdnet.net import NetModel
from kdnet.runtime import Device
from kdnet.solvers import Schedule

Array = NDArray[Any]


@dataclass(frozen=True)
class Began:
    """What a forward pass began with, so that a backward pass can go over the same ground.

    Attributes:
        first: the index of its first layer.
        blobs: what its layers read from outside, by blob.
        noise: the random numbers it used, by input name.
        past: the weights it used, where they are not the net's own.
    """

    first: int = 0
    blobs: Mapping[str, Array] = field(default_factory=dict)
    noise: Mapping[str, Array] = field(default_factory=dict)
    past: Mapping[str, Array] | None = None


class Passes:
    """Runs a net and fills its blobs.

    Args:
        net: the net.
        weights: its weights.
        device: where it runs.
        streams: the data of its data layers.
        seed: for noise.
        schedules: the numbers that a solver moves; ``scalars`` then holds their values.
    """

    def __init__(  # what a net is made of
        self,
        net: NetModel,
        weights: Weights,
        device: Device,
        streams: Streams,
        *,
        seed: int,
        schedules: Sequence[Schedule] = (),
    ) -> None:
        self.net = net
        self.streams = streams
        self.began = Began()
        self.count = 0
        self.scalars: dict[str, float] = {}
        self._weights = weights
        self._device = device
        self._engines = Engines(weights, device)
        self._seed = seed
        self._schedules = schedules
        self._blobs: dict[str, Blob] = {}
        self._postponed: Callable[[], Began] | None = None
        self._slopes_postponed = False

    def attach(self, blobs: dict[str, Blob]) -> None:
        """Fill these blobs from now on."""
        self._blobs = blobs

    def reshape(self) -> None:
        """Give every blob the shape that follows from those of the inputs."""
        every = range(len(self.net.layers))
        fed = {name: self._blobs[name].shape for name in self._fed(every)}
        forward = trace_range(self.net, every, fed, self._device.kind, self._schedules)
        self._shape({name: forward.blobs[name].shape for name in self._blobs})

    def forward(self, layers: range) -> None:
        """Run layers on what their data and the blobs before them hold."""
        if len(layers) < len(self.net.layers):
            self.catch_up()
        self._drop()
        self._read(layers)
        key, segment = self._forward_segment(layers)
        changed = {top for index in layers for top in self._changed(index)}
        blobs = {
            name: array.copy() if name in changed else array
            for name, array in ((name, self._blobs[name].held) for name in self._fed(layers))
        }
        noise = draw_noise(segment, self._seed, self.count)
        self.count += 1
        self.began = Began(layers.start, blobs, noise)
        self._compute(key, segment)

    def next_batch(self) -> dict[str, Array]:
        """The values of all data tops, after their layers have read one batch."""
        every = range(len(self.net.layers))
        self._read(every)
        return {name: self._blobs[name].held.copy() for name in self._fed(every)}

    def postpone(self, began: Callable[[], Began]) -> None:
        """A whole pass was made elsewhere: the blobs are filled when one is looked at.

        Args:
            began: says what that pass began with, ``past`` included.
        """
        self._postponed, self._slopes_postponed = began, True
        self._weights.settle = self.catch_up_slopes
        for blob in self._blobs.values():
            blob.before_data, blob.before_diff = self.catch_up, self.catch_up_slopes

    def _drop(self) -> None:
        self._postponed = None
        for blob in self._blobs.values():
            blob.before_data = None

    def _drop_slopes(self) -> None:
        self._slopes_postponed, self._weights.settle = False, None
        for blob in self._blobs.values():
            blob.before_diff = None

    def clear_slopes(self) -> None:
        """Set the gradients of all weights to 0, those that were postponed too."""
        self._drop_slopes()
        self._weights.clear_slopes()

    def catch_up(self) -> None:
        """Fill the blobs as the pass that was postponed would have."""
        if self._postponed is None:
            return
        self.began = self._postponed()
        self._drop()
        for name, array in self.began.blobs.items():
            self._blobs[name].fill(array)
        self._compute(*self._forward_segment(range(len(self.net.layers))))

    def catch_up_slopes(self) -> None:
        """Compute the gradients of the pass that was postponed."""
        if self._slopes_postponed:
            self.catch_up()
            self._weights.clear_slopes()
            self.backward(len(self.net.layers) - 1, 0, ())

    def _compute(self, key: Hashable, segment: Segment) -> None:
        self._shape(segment.shapes)
        began = self.began
        feeds = {name: began.blobs[blob] for name, blob in segment.inputs.items()}
        check_fed(segment, feeds, self.count)
        self._weights.fresh()
        found = self._engines.run(key, {**feeds, **began.noise}, self.scalars, began.past)
        for output, blob in segment.values.items():
            self._blobs[blob].fill(found[output])

    def backward(self, start: int, end: int, requested: Collection[str]) -> None:
        """Gradients from layer ``start`` down to layer ``end``, from the diffs of what is on top.

        Weights' gradients are added to, blobs' replaced.
        """
        self.catch_up()
        self._drop_slopes()
        self._weights.fresh()
        began = self.began if end >= self.began.first else Began(0, noise=self.began.noise)
        layers = range(began.first, start + 1)
        shapes = {
            name: began.blobs[name].shape if name in began.blobs else self._blobs[name].shape
            for name in self._fed(layers)
        }
        key = ("backward", layers, end, tuple(sorted(requested)), tuple(shapes.items()))
        segment = self._engines.find(key)
        if segment is None:
            forward = trace_range(self.net, layers, shapes, self._device.kind, self._schedules)
            made = backward_segment(forward, start + 1 - end, requested)
            segment = self._engines.add(key, made)
        feeds = {
            name: began.blobs.get(blob, self._blobs[blob].held)
            for name, blob in segment.inputs.items()
        }
        seeds = {name: self._blobs[blob].slope for name, blob in segment.seeds.items()}
        noise = {**draw_noise(segment, self._seed, self.count), **began.noise}
        found = self._engines.run(key, {**noise, **feeds, **seeds}, self.scalars, began.past)
        self._store_slopes(segment, found, requested)

    def _store_slopes(
        self, segment: Segment, found: Mapping[str, Array], requested: Collection[str]
    ) -> None:
        for output, blob in segment.values.items():
            self._blobs[blob].slope[...] = found[output]
        for blob in {*requested} - {*segment.values.values(), *segment.seeds.values()}:
            self._blobs[blob].slope[...] = 0
        for output, user in segment.slopes.items():
            self._weights.slopes[self._weights.name(user)] += found[output]

    def _forward_segment(self, layers: range) -> tuple[Hashable, Segment]:
        shapes = {name: self._blobs[name].shape for name in self._fed(layers)}
        key = ("forward", layers, tuple(shapes.items()))
        known = self._engines.find(key)
        if known is None:
            forward = trace_range(self.net, layers, shapes, self._device.kind, self._schedules)
            known = self._engines.add(key, forward_segment(forward))
        return key, known

    def _fed(self, layers: range) -> list[str]:
        """The blobs whose values a range begins with: data, and what earlier layers made."""
        chosen = self.net.layers[layers.start : layers.stop]
        data = [top for layer in chosen if is_data(layer) for top in layer.tops]
        return [*data, *outside_blobs(chosen)]

    def _changed(self, index: int) -> tuple[str, ...]:
        layer = self.net.layers[index]
        return tuple(top for top in layer.tops if top in layer.bottoms)

    def _read(self, layers: range) -> None:
        """One batch, if a data layer is among the layers; the others' blobs are left alone."""
        chosen = [layer for index, layer in self.streams.layers.items() if index in layers]
        if chosen:
            batch = self.streams.next()
            for top in (top for layer in chosen for top in layer.tops):
                self._blobs[top].fill(batch[top])

    def _shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            self._blobs[name].reshape(shape)
