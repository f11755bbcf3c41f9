"""Update rules that divide by the size of past gradients, element by element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.solvers.transforms import Changed, Number, Point, Transform


def _mean(g: Emitter, share: float, old: Tensor, new: Tensor) -> Tensor:
    """A running mean: share·old + (1 − share)·new."""
    return g.add(g.mul(old, share), g.mul(new, 1 - share))


def _divided(g: Emitter, update: Tensor, squares: Tensor, delta: float) -> Tensor:
    return g.div(update, g.add(g.sqrt(squares), delta))


@dataclass(frozen=True)
class DivideByRootOfSum(Transform):
    """h ← h + g²; u ← g / (√h + δ)."""

    slots: ClassVar[tuple[str, ...]] = ("squares",)
    delta: float

    def apply(self, at: Point) -> Changed:
        """The sum of squares, then a quotient a leaf."""
        g, past = at.g, at.past("squares")
        kept = [g.add(old, g.square(u)) for old, u in zip(past, at.updates, strict=True)]
        pairs = zip(at.updates, kept, strict=True)
        return [_divided(g, u, h, self.delta) for u, h in pairs], {"squares": kept}


@dataclass(frozen=True)
class DivideByRootOfMean(Transform):
    """h ← ρ·h + (1 − ρ)·g²; u ← g / (√h + δ)."""

    slots: ClassVar[tuple[str, ...]] = ("mean_square",)
    share: float
    delta: float

    def apply(self, at: Point) -> Changed:
        """The mean of squares, then a quotient a leaf."""
        g, past = at.g, at.past("mean_square")
        pairs = zip(past, at.updates, strict=True)
        kept = [_mean(g, self.share, old, g.square(u)) for old, u in pairs]
        updates = zip(at.updates, kept, strict=True)
        return [_divided(g, u, h, self.delta) for u, h in updates], {"mean_square": kept}


@dataclass(frozen=True)
class ScaleToPastUpdates(Transform):
    """h ← ρ·h + (1 − ρ)·g²; u ← g·√((s + δ) / (h + δ)); s ← ρ·s + (1 − ρ)·u²."""

    slots: ClassVar[tuple[str, ...]] = ("mean_square", "mean_square_update")
    share: float
    delta: float

    def apply(self, at: Point) -> Changed:
        """A root of a quotient a leaf between two running means."""
        g, updates, squares, sizes = at.g, [], [], []
        past = zip(at.past("mean_square"), at.past("mean_square_update"), strict=True)
        for update, (square, size) in zip(at.updates, past, strict=True):
            squares.append(_mean(g, self.share, square, g.square(update)))
            ratio = g.div(g.add(size, self.delta), g.add(squares[-1], self.delta))
            updates.append(g.mul(update, g.sqrt(ratio)))
            sizes.append(_mean(g, self.share, size, g.square(updates[-1])))
        return updates, {"mean_square": squares, "mean_square_update": sizes}


@dataclass(frozen=True)
class Moments(Transform):
    """m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; u ← (m / (√v + δ))·√(1 − β₂ᵗ) / (1 − β₁ᵗ).

    Caffe's Adam: δ is added before the means are corrected for their start at zero, as in the
    second form of section 2 of the paper.
    """

    slots: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")
    share: float
    square_share: float
    delta: float

    def numbers(self) -> Mapping[str, Number]:
        """The correction of iteration t − 1; 1 − β₂ᵗ would lose four digits in float32."""
        return {"moment_correction": lambda i: self._root(i) / self._start(i)}

    def _start(self, iteration: int) -> float:
        return float(1 - self.share ** (iteration + 1))

    def _root(self, iteration: int) -> float:
        return math.sqrt(1 - self.square_share ** (iteration + 1))

    def apply(self, at: Point) -> Changed:
        """Two running means and a quotient a leaf."""
        g, updates, means, squares = at.g, [], [], []
        past = zip(at.past("first_moment"), at.past("second_moment"), strict=True)
        for update, (mean, square) in zip(at.updates, past, strict=True):
            means.append(_mean(g, self.share, mean, update))
            squares.append(_mean(g, self.square_share, square, g.square(update)))
            updates.append(self.update(at, means[-1], squares[-1]))
        return updates, {"first_moment": means, "second_moment": squares}

    def update(self, at: Point, mean: Tensor, square: Tensor) -> Tensor:
        """The quotient of the means, corrected."""
        quotient = _divided(at.g, mean, square, self.delta)
        return at.g.mul(quotient, at.inputs.numbers["moment_correction"])


@dataclass(frozen=True)
class CorrectedMoments(Moments):
    """As :class:`Moments`, but u ← m̂ / (√v̂ + δ), m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)."""

    def numbers(self) -> Mapping[str, Number]:
        """The factors that make m̂ of m and √v̂ of √v."""
        return {
            "mean_correction": lambda i: 1 / self._start(i),
            "root_correction": lambda i: 1 / self._root(i),
        }

    def update(self, at: Point, mean: Tensor, square: Tensor) -> Tensor:
        """The quotient of the corrected means."""
        g, numbers = at.g, at.inputs.numbers
        root = g.mul(g.sqrt(square), numbers["root_correction"])
        return g.div(g.mul(mean, numbers["mean_correction"]), g.add(root, self.delta))


@dataclass(frozen=True)
class TrustRatio(Transform):
    """u ← u·‖w‖₂ / ‖u‖₂, a weight blob at a time; u where one of the norms is 0.

    A bias that starts at zero would otherwise never move.
    """

    def apply(self, at: Point) -> Changed:
        """Two norms and a product a leaf."""
        g, found = at.g, []
        for leaf, update in zip(at.leaves, at.updates, strict=True):
            own = g.sqrt(g.sum_all(g.square(leaf.weight)))
            size = g.sqrt(g.sum_all(g.square(update)))
            ratio = g.div(own, g.where(g.greater(size, 0.0), size, 1.0))
            both = g.greater(g.mul(own, size), 0.0)
            found.append(g.mul(update, g.where(both, ratio, 1.0)))
        return found, {}
