"""Update rules with a running sum of updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.solvers.transforms import Changed, Point, Transform


@dataclass(frozen=True)
class Momentum(Transform):
    """h ← μ·h + η·lr_mult·g; the update is h.

    The rate is inside the buffer, so a change of rate does not rescale the past: Caffe's
    convention, unlike PyTorch's.
    """

    slots: ClassVar[tuple[str, ...]] = ("momentum",)
    momentum: float

    def apply(self, at: Point) -> Changed:
        """Two products and a sum a leaf for the history."""
        past = at.past("momentum")
        kept = []
        for leaf, update, old in zip(at.leaves, at.updates, past, strict=True):
            stepped = at.g.mul(update, at.rate_of(leaf))
            kept.append(at.g.add(at.g.mul(old, self.momentum), stepped))
        pairs = zip(past, kept, strict=True)
        return [self.update(at.g, old, new) for old, new in pairs], {"momentum": kept}

    def update(self, _g: Emitter, _old: Tensor, new: Tensor) -> Tensor:
        """What is subtracted from the weight."""
        return new


@dataclass(frozen=True)
class NesterovMomentum(Momentum):
    """h ← μ·h + η·lr_mult·g; the update is (1 + μ)·h − μ·h_old."""

    def update(self, g: Emitter, old: Tensor, new: Tensor) -> Tensor:
        """A step back along the old history, then one and a share along the new."""
        return g.sub(g.mul(new, 1 + self.momentum), g.mul(old, self.momentum))
