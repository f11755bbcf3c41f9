"""The compiled ranges of one net, each with its session over the net's own weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.api.segments import Segment
from kdnet.api.weights import Weights
from kdnet.errors import LayerError, fail
from kdnet.runtime import Device, Engine
from kdnet.runtime.feeding import check_labels
from kdnet.runtime.shared import SharedBuffers
from kdnet.weights import philox

Array = NDArray[Any]
# How many shapes of a net stay compiled.
KEPT = 16


class Engines:
    """Runs segments; the latest ones stay compiled.

    Attributes:
        room: for how many segments there is.

    Args:
        weights: the net's weights.
        device: where it runs.
    """

    def __init__(self, weights: Weights, device: Device) -> None:
        self.device = device
        self.room = KEPT
        self._weights = weights
        self._replaced = weights.replaced
        self._engines: OrderedDict[Hashable, tuple[Segment, Engine | None]] = OrderedDict()
        self._buffers: dict[tuple[Hashable, int], SharedBuffers] = {}

    def find(self, key: Hashable) -> Segment | None:
        """The segment that was compiled under a key."""
        if key in self._engines:
            self._engines.move_to_end(key)
            return self._engines[key][0]
        return None

    def add(self, key: Hashable, segment: Segment) -> Segment:
        """Keep a compiled segment.

        Raises:
            LayerError: shape-mismatch, where blobs have shapes that need other weights.
        """
        self._check_shapes(segment)
        program = segment.program
        engine = Engine(program, self.device, {}) if program is not None else None
        self._engines[key] = (segment, engine)
        while len(self._engines) > self.room:
            oldest, _ = self._engines.popitem(last=False)
            self._buffers = {k: v for k, v in self._buffers.items() if k[0] != oldest}
        return segment

    def _check_shapes(self, segment: Segment) -> None:
        for user, shape in segment.weights.values():
            slot = self._weights.slots[self._weights.name(user)]
            if prod(slot.shape) != prod(shape):
                text = (
                    f'layer "{user[0]}": blob {user[1]} has shape {slot.shape}; what the layer '
                    f"reads now needs {shape}"
                )
                fail(LayerError, "shape-mismatch", text, span=slot.span)

    def run(
        self,
        key: Hashable,
        feeds: Mapping[str, Array],
        scalars: Mapping[str, float],
        past: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """What a segment computes, by output name.

        Args:
            key: the segment's.
            feeds: data and noise by input name.
            scalars: scheduled numbers by input name.
            past: arrays by weight name to read instead of the net's own; its state stays as it is.
        """
        if self._replaced != self._weights.replaced:
            self._rebind()
        engine = self._engines[key][1]
        if engine is None:
            return {}
        buffers = self._bound(key, past)
        buffers.push(engine.program.reads)
        buffers.push(slot.name for slot in engine.program.state)
        return engine.run(buffers, feeds, scalars, keep=past is None)

    def _bound(self, key: Hashable, past: Mapping[str, Array] | None) -> SharedBuffers:
        side = int(past is not None)
        if (key, side) not in self._buffers:
            arrays = self._weights.values if past is None else past
            self._buffers[key, side] = SharedBuffers(self.device, self._arrays(key, arrays), side)
        return self._buffers[key, side]

    def _arrays(self, key: Hashable, arrays: Mapping[str, Array]) -> dict[str, Array]:
        segment, _ = self._engines[key]
        return {
            name: arrays[self._weights.name(user)].reshape(shape)
            for name, (user, shape) in segment.weights.items()
        }

    def _rebind(self) -> None:
        """Sessions keep pointers to arrays: where these were replaced, they begin anew."""
        self._buffers.clear()
        for key, (segment, engine) in list(self._engines.items()):
            if engine is not None:
                self._engines[key] = (segment, Engine(engine.program, self.device, {}))
        self._replaced = self._weights.replaced


def draw_noise(segment: Segment, seed: int, iteration: int, micro: int = 0) -> dict[str, Array]:
    """The uniform numbers that a run needs, as training draws them."""
    slots = segment.program.noise if segment.program else ()
    return {
        slot.name: philox(
            seed if slot.seed is None else slot.seed, "noise", slot.layer, iteration, micro
        ).random(slot.shape, np.float32)
        for slot in slots
    }


def check_fed(segment: Segment, feeds: Mapping[str, Array], batch: int) -> None:
    """Refuse labels that are no classes.

    Raises:
        DataError: label-out-of-range.
    """
    for check in segment.program.labels if segment.program else ():
        check_labels(check, feeds[check.tensor.name], batch)
