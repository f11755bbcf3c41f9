"""Forward and backward passes over ranges of one net's layers.

A range is run in pieces: one program, or several with a Python layer between two of them. Where a
program wants to be called for each layer, each layer is a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdnet.api.blobs import Blob
from kdnet.api.callbacks import LayerCalls, tell
from kdnet.api.engines import KEPT, Engines, check_fed, draw_noise
from kdnet.api.hosted import PythonLayers
from kdnet.api.segments import (
    Segment,
    backward_segment,
    forward_segment,
    outside_blobs,
    trace_range,
)
from kdnet.api.streams import Streams
from kdnet.api.way_back import WayBack, way_back
from kdnet.api.weights import Weights
from kdnet.compile import Forward
from kdnet.compile.program import LOSS
from kdnet.errors import LayerError, fail
from kdnet.layers import is_data
from kdnet.layers.python import HostedLayer
from kdnet.net import NetModel
from kdnet.runtime import Device
from kdnet.solvers import Schedule

Array = NDArray[Any]


class Setting(NamedTuple):
    """How a net is to run: where, from which seed, and with which of its numbers moving."""

    device: Device
    seed: int
    schedules: Sequence[Schedule] = ()


@dataclass(frozen=True)
class Began:
    """What a piece of a forward pass began with, so that a backward pass can go over it again.

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
        streams: the data of its data layers.
        hosted: its Python layers.
        setting: how it is to run; ``scalars`` holds the values of its schedules.

    Attributes:
        calls: what is called for each layer; to be asked for by :meth:`called`.
        ground: what the pieces of the last forward pass began with.
        count: how many forward passes were made.
        loss: the last forward pass's.
        filtered: the blobs of which a Filter left some items only.
    """

    def __init__(
        self,
        net: NetModel,
        weights: Weights,
        streams: Streams,
        hosted: PythonLayers,
        setting: Setting,
    ) -> None:
        self.net = net
        self.streams = streams
        self.calls = LayerCalls()
        self.ground: list[Began] = [Began()]
        self.count = 0
        self.filtered: frozenset[str] = frozenset()
        self.loss = 0.0
        self.scalars: dict[str, float] = {}
        self._weights = weights
        self._device, self._seed, self._schedules = setting
        self._hosted = hosted
        self._engines = Engines(weights, self._device)
        # Whether the last forward pass took each layer apart from the others.
        self._apart = False
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
        with self._hosted.allowed():
            forward = self._trace(every, fed)
        self._shape({name: forward.blobs[name].shape for name in self._blobs})

    def called(self) -> LayerCalls:
        """The functions that are called for each layer, from the next forward pass on."""
        self.catch_up()
        return self.calls

    def forward(self, layers: range, turn: tuple[int, int] | None = None) -> None:
        """Run layers on what their data and the blobs before them hold.

        Args:
            layers: their indices.
            turn: the iteration and the micro-step for which noise is drawn.
        """
        if len(layers) < len(self.net.layers):
            self.catch_up()
        self._drop()
        self._read(layers)
        self._apart, self.ground, self.loss = bool(self.calls), [], 0.0
        for piece in self.pieces(layers):
            self._check_cut(piece, layers)
            tell(self.calls.before_forward, piece)
            self._run(piece, turn or (self.count, 0))
            tell(self.calls.after_forward, piece)
        self.count += 1

    def pieces(self, layers: range) -> list[range]:
        """The ranges that are run one after the other."""
        found, start = [], layers.start
        for index in layers:
            if self._apart or self._hosted.get(index) is not None:
                found += [range(start, index), range(index, index + 1)]
                start = index + 1
        return [piece for piece in (*found, range(start, layers.stop)) if piece]

    def _check_cut(self, piece: range, layers: range) -> None:
        """Refuse to begin anew with what a Filter left: nothing says which items it kept.

        Raises:
            LayerError: filtered-batch.
        """
        names = outside_blobs(self.net.layers[piece.start : piece.stop])
        filtered = next((name for name in names if name in self.filtered), None)
        if filtered is not None and piece.start > layers.start:
            what = "layers run one by one" if self._apart else "the net is cut at a Python layer"
            text = f'{what} between the Filter that left "{filtered}" and a layer that reads it'
            later = self.net.layers[piece.start :]
            layer = next(layer for layer in later if filtered in layer.bottoms)
            fail(LayerError, "filtered-batch", text, span=layer.position)

    def _run(self, piece: range, turn: tuple[int, int]) -> None:
        hosted = self._hosted.get(piece.start)
        if hosted is not None:
            self.ground.append(Began(piece.start))
            bottoms = [self._blobs[name].held for name in hosted.model.bottoms]
            for name, values in zip(hosted.model.tops, hosted.forward(bottoms), strict=True):
                self._blobs[name].fill(values)
                self.loss += self._blobs[name].loss_weight * float(values.sum())
            return
        key, segment = self._forward_segment(piece)
        changed = {top for index in piece for top in self._changed(index)}
        blobs = {
            name: array.copy() if name in changed else array
            for name, array in ((name, self._blobs[name].held) for name in self._fed(piece))
        }
        began = Began(piece.start, blobs, draw_noise(segment, self._seed, *turn))
        self.ground.append(began)
        self._compute(key, segment, began)

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
        began = self._postponed()
        self.ground, self._apart = [began], False
        self._drop()
        for name, array in began.blobs.items():
            self._blobs[name].fill(array)
        self._compute(*self._forward_segment(range(len(self.net.layers))), began)

    def catch_up_slopes(self) -> None:
        """Compute the gradients of the pass that was postponed."""
        if self._slopes_postponed:
            self.catch_up()
            self._weights.clear_slopes()
            self.backward(len(self.net.layers) - 1, 0, ())

    def _compute(self, key: Hashable, segment: Segment, began: Began) -> None:
        self._shape(segment.shapes)
        feeds = {name: began.blobs[blob] for name, blob in segment.inputs.items()}
        check_fed(segment, feeds, self.count)
        self._weights.fresh()
        found = self._engines.run(key, {**feeds, **began.noise}, self.scalars, began.past)
        self.loss += float(found.get(LOSS, 0.0))
        for output, blob in segment.values.items():
            self._blobs[blob].fill(found[output])

    def backward(self, start: int, end: int, requested: Collection[str]) -> None:
        """Gradients from layer ``start`` down to layer ``end``, from the diffs of what is on top.

        Weights' gradients are added to, blobs' replaced.
        """
        self.catch_up()
        self._drop_slopes()
        self._weights.fresh()
        # A pass that goes below the last forward pass begins with what the blobs hold now.
        below = not self.ground or end < self.ground[0].first
        ground = {} if below else {began.first: began for began in self.ground}
        noise = {name: array for began in self.ground for name, array in began.noise.items()}
        first = min(ground, default=0)
        layers = range(end, start + 1)
        every = self.net.message.force_backward
        trained = self._weights.trained(every=every)
        way = way_back(self.net, layers, first, trained, requested)
        # An end without a gradient has none to pass on: it may be that of a metric.
        ends = (name for name in sorted(way.ends) if every or self._blobs[name].has_slope)
        way.waiting = {name: self._blobs[name].slope.copy() for name in ends}
        for piece in reversed(self.pieces(range(first, layers.stop))):
            if piece.stop > end:
                tell(self.calls.before_backward, piece)
                began = ground.get(piece.start, Began(piece.start, noise=noise))
                self._run_back(piece, began, layers, way)
                tell(self.calls.after_backward, piece)
        for blob in way.waiting.keys() - way.ends:
            self._blobs[blob].slope[...] = way.waiting[blob]
        for blob in {*requested} - way.reached - way.ends:
            self._blobs[blob].slope[...] = 0

    def _run_back(self, piece: range, began: Began, layers: range, way: WayBack) -> None:
        hosted = self._hosted.get(piece.start)
        if hosted is not None:
            self._pull(hosted, way)
            return
        shapes = {
            name: began.blobs[name].shape if name in began.blobs else self._blobs[name].shape
            for name in self._fed(piece)
        }
        passed = self.net.layers[max(layers.start, piece.start) : piece.stop]
        waiting = way.seeds(passed)
        key = ("backward", piece, layers, way.wanted, waiting, tuple(shapes.items()))
        segment = self._engines.find(key)
        if segment is None:
            made = backward_segment(self._trace(piece, shapes), len(passed), way)
            segment = self._engines.add(key, made)
        feeds = {
            name: began.blobs.get(blob, self._blobs[blob].held)
            for name, blob in segment.inputs.items()
        }
        seeds = {name: way.waiting[blob] for name, blob in segment.seeds.items()}
        noise = {**draw_noise(segment, self._seed, self.count), **began.noise}
        found = self._engines.run(key, {**noise, **feeds, **seeds}, self.scalars, began.past)
        values = {blob: found[output] for output, blob in segment.values.items()}
        way.pass_piece(waiting, values, outside_blobs(passed))
        for blob, values_of in values.items():
            self._blobs[blob].slope[...] = values_of
        for output, user in segment.slopes.items():
            slope = self._weights.slopes[self._weights.name(user)]
            slope += found[output].reshape(slope.shape)

    def _pull(self, hosted: HostedLayer, way: WayBack) -> None:
        """Gradients through a Python layer, where any arrive and any are wanted."""
        model = hosted.model
        slopes = [self._arrived(top, way) for top in model.tops]
        cut = [not propagate for propagate in model.message.propagate_down]
        cut += [False] * (len(model.bottoms) - len(cut))
        wanted = [
            name in way.wanted and not held for name, held in zip(model.bottoms, cut, strict=True)
        ]
        own = any(layer == model.name for layer, _ in way.trained)
        if all(slope is None for slope in slopes) or not (own or any(wanted)):
            return
        diffs = hosted.pull(slopes, wanted)
        for name, diff, asked in zip(model.bottoms, diffs, wanted, strict=True):
            if asked:
                way.add(name, diff)

    def _arrived(self, top: str, way: WayBack) -> Array | None:
        """The gradient that waits at a Python layer's top, the loss weight included."""
        blob = self._blobs[top]
        slope = way.waiting.pop(top, None)
        if top not in way.ends and blob.loss_weight:
            own = np.full(blob.shape, blob.loss_weight, np.float32)
            slope = own if slope is None else own + slope
        if slope is not None:
            blob.slope[...] = slope
        return slope

    def _trace(self, layers: range, shapes: Mapping[str, tuple[int, ...]]) -> Forward:
        return trace_range(self.net, layers, shapes, self._device.kind, self._schedules)

    def _forward_segment(self, layers: range) -> tuple[Hashable, Segment]:
        shapes = {name: self._blobs[name].shape for name in self._fed(layers)}
        key = ("forward", layers, tuple(shapes.items()))
        known = self._engines.find(key)
        if known is None:
            self._engines.room = KEPT * len(self.pieces(range(len(self.net.layers))))
            made = forward_segment(self._trace(layers, shapes))
            known = self._engines.add(key, made)
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
