"""A few batches through a probe: gradients by loss, firing units, right answers of teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile.probe import Probe
from kdnet.data import Source
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.feeding import batches
from kdnet.runtime.scoring import Collector, HeadScore, score_head
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]


@dataclass
class Sample:
    """What some batches show.

    Attributes:
        items: how many items were looked at.
        squares: squared gradient of each loss's top by trained weight, the mean over batches.
        largest: by rectifier the largest value of each unit.
        scores: of each head by its blob.
    """

    items: int = 0
    squares: dict[str, Array] = field(default_factory=dict)
    largest: dict[str, Array] = field(default_factory=dict)
    scores: dict[str, HeadScore] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """How a sample is taken: where, from what data, with which scheduled numbers."""

    device: Device
    sources: Sequence[Source]
    scheduled: Mapping[str, float]
    seed: int
    count: int


def take_sample(probe: Probe, engine: Engine, setting: Setting) -> Sample:
    """Run ``setting.count`` batches."""
    buffers = StateBuffers(setting.device, {})
    found, collector = Sample(), Collector(probe.heads)
    with batches(engine.feeding, setting.sources, setting.seed) as feed:
        for index in range(setting.count):
            seen = engine.run(buffers, feed.next(index), setting.scheduled, keep=False)
            _add(found, probe, {name.removeprefix("watched/"): seen[name] for name in seen})
            collector.add_watched(seen)
    found.items = setting.count * max(
        (shape[0] for shape in engine.feeding.data.values() if shape), default=1
    )
    for name in found.squares:
        found.squares[name] = found.squares[name] / setting.count
    for head in probe.heads:
        score = score_head(head, collector)
        if score is not None:
            found.scores[head.blob] = score
    return found


def _add(found: Sample, probe: Probe, seen: Mapping[str, Array]) -> None:
    for name in probe.reached.keys() - probe.unmeasured:
        squares = seen[f"gradient/{name}"].astype(np.float64)
        found.squares[name] = found.squares.get(name, np.zeros_like(squares)) + squares
    for name in probe.relus:
        largest = seen[f"fired/{name}"]
        found.largest[name] = np.maximum(found.largest.get(name, largest), largest)
