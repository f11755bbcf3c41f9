"""What update rules have in common: transforms that emit ops, gradients in, differences out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from kdnet.graph import Emitter, Tensor


@dataclass(frozen=True)
class Leaf:
    """A trained weight as a solver sees it.

    ``factor`` is a scheduled factor on its lr_mult; at 0 the weight and its history hold still.
    """

    weight: Tensor
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    factor: Tensor | None = None


History = Mapping[str, Sequence[Tensor]]
Number = Callable[[int], float]
Changed = tuple[list[Tensor], dict[str, list[Tensor]]]


@dataclass(frozen=True)
class Inputs:
    """What a chain reads beside weights and gradients.

    ``numbers`` are the inputs that carry what :meth:`Transform.numbers` promises.
    """

    rate: Tensor
    history: History
    numbers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """Where a chain stands: the leaves, their updates so far, and the chain's inputs."""

    g: Emitter
    leaves: Sequence[Leaf]
    updates: Sequence[Tensor]
    inputs: Inputs

    def past(self, slot: str) -> Sequence[Tensor]:
        """What is kept in a slot, a tensor a leaf."""
        return self.inputs.history[slot]

    def rate_of(self, leaf: Leaf) -> Tensor:
        """The leaf's own rate: η · lr_mult, times its scheduled factor."""
        own = self.g.mul(self.inputs.rate, leaf.lr_mult)
        return own if leaf.factor is None else self.g.mul(own, leaf.factor)


@dataclass(frozen=True)
class Transform:
    """Maps the updates of all leaves to new ones; ``slots`` names the history it keeps."""

    slots: ClassVar[tuple[str, ...]] = ()

    def numbers(self) -> Mapping[str, Number]:
        """What the host works out each iteration, in float64 since float32 is too coarse."""
        return {}

    def apply(self, at: Point) -> Changed:
        """Emit the transform; return the new updates and the next value of each slot."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClipByGlobalNorm(Transform):
    """g ← g · min(1, c / ‖g‖₂), the norm taken over all leaves together (clip_gradients)."""

    threshold: float

    def apply(self, at: Point) -> Changed:
        """One norm, one factor, one product a leaf."""
        g = at.g
        squares = [g.sum_all(g.square(update)) for update in at.updates]
        total = squares[0]
        for square in squares[1:]:
            total = g.add(total, square)
        norm = g.sqrt(total)
        # The quotient is not used where the norm is small, so its division by zero is harmless.
        factor = g.where(g.greater(norm, self.threshold), g.div(self.threshold, norm), 1.0)
        return [g.mul(update, factor) for update in at.updates], {}


@dataclass(frozen=True)
class Divide(Transform):
    """g ← g / n (iter_size)."""

    divisor: float

    def apply(self, at: Point) -> Changed:
        """One product a leaf."""
        return [at.g.mul(update, 1.0 / self.divisor) for update in at.updates], {}


@dataclass(frozen=True)
class Decay(Transform):
    """u ← u + λ·decay_mult·w (L2) or u + λ·decay_mult·sign(w) (L1).

    Before the transforms that keep history it is Caffe's, part of the gradient; after them it is
    decoupled from their averages.
    """

    rate: float
    l1: bool = False

    def apply(self, at: Point) -> Changed:
        """A product and a sum a leaf; nothing where decay_mult is 0."""
        pairs = zip(at.leaves, at.updates, strict=True)
        return [self._decayed(at.g, leaf, update) for leaf, update in pairs], {}

    def _decayed(self, g: Emitter, leaf: Leaf, update: Tensor) -> Tensor:
        factor = self.rate * leaf.decay_mult
        if not factor:
            return update
        term = g.sign(leaf.weight) if self.l1 else leaf.weight
        return g.add(update, g.mul(term, factor))


@dataclass(frozen=True)
class Rate(Transform):
    """u ← η·lr_mult·u."""

    def apply(self, at: Point) -> Changed:
        """One product a leaf."""
        pairs = zip(at.leaves, at.updates, strict=True)
        return [at.g.mul(update, at.rate_of(leaf)) for leaf, update in pairs], {}


@dataclass(frozen=True)
class Remember(Transform):
    """u ← u, kept as history: Caffe leaves it in each weight's diff (snapshot_diff)."""

    slots: ClassVar[tuple[str, ...]] = ("update",)

    def apply(self, at: Point) -> Changed:
        """No node."""
        return list(at.updates), {"update": list(at.updates)}


def apply_chain(
    g: Emitter,
    chain: Sequence[Transform],
    leaves: Sequence[Leaf],
    gradients: Sequence[Tensor],
    inputs: Inputs,
) -> Changed:
    """Emit ``w − chain(g)`` for every leaf.

    Returns:
        The next weights, and the next value of every history slot.
    """
    moving = [None if leaf.factor is None else g.greater(leaf.factor, 0.0) for leaf in leaves]
    # What holds still must not count in the norm of all gradients either.
    updates: Sequence[Tensor] = [
        update if gate is None else g.where(gate, update, 0.0)
        for gate, update in zip(moving, gradients, strict=True)
    ]
    following: dict[str, list[Tensor]] = {}
    for transform in chain:
        updates, new = transform.apply(Point(g, leaves, updates, inputs))
        following.update(new)
    weights = [g.sub(leaf.weight, update) for leaf, update in zip(leaves, updates, strict=True)]
    return _gated(g, moving, weights, [leaf.weight for leaf in leaves]), {
        slot: _gated(g, moving, new, inputs.history[slot]) for slot, new in following.items()
    }


def _gated(
    g: Emitter, moving: Sequence[Tensor | None], new: Sequence[Tensor], old: Sequence[Tensor]
) -> list[Tensor]:
    """The new values, except where a gate is closed."""
    return [
        value if gate is None else g.where(gate, value, held)
        for gate, value, held in zip(moving, new, old, strict=True)
    ]
