"""Update rules: one row a solver type, with its formula in numpy from the paper.

An oracle gets the solver's fields, the rate, a weight, its gradients up to now (the last one is
of this iteration), and returns the next weight; it works everything out from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

Array = np.ndarray
Oracle = Callable[[SimpleNamespace, float, Array, Sequence[Array]], Array]


@dataclass(frozen=True)
class SolverCase:
    """A solver type, the fields of its solver, and its formula for one step."""

    type: str
    fields: str
    oracle: Oracle

    @property
    def id(self) -> str:
        """The type and the fields."""
        return f"{self.type} {self.fields}".strip()


def mean(share: float, values: Sequence[Array]) -> Array:
    """The running mean of the values that starts at zero."""
    found = np.zeros_like(values[0])
    for value in values:
        found = share * found + (1 - share) * value
    return found


def sgd(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    powers = p.momentum ** np.arange(len(slopes))[::-1]
    return w - rate * sum(power * slope for power, slope in zip(powers, slopes, strict=True))


def nesterov(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    new = w - sgd(p, rate, w, slopes)
    old = w - sgd(p, rate, w, slopes[:-1]) if slopes[1:] else 0
    return w - (1 + p.momentum) * new + p.momentum * old


def adagrad(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    return w - rate * slopes[-1] / (np.sqrt(sum(s**2 for s in slopes)) + p.delta)


def rmsprop(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    size = np.sqrt(mean(p.rms_decay, [slope**2 for slope in slopes]))
    return w - rate * slopes[-1] / (size + p.delta)


def adadelta(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    updates: list[Array] = []
    for count in range(1, len(slopes) + 1):
        squares = mean(p.momentum, [slope**2 for slope in slopes[:count]])
        past = mean(p.momentum, [np.zeros_like(w), *[update**2 for update in updates]])
        updates.append(slopes[count - 1] * np.sqrt((past + p.delta) / (squares + p.delta)))
    return w - rate * updates[-1]


def adam(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    t = len(slopes)
    m, v = mean(p.momentum, slopes), mean(p.momentum2, [slope**2 for slope in slopes])
    step = rate * np.sqrt(1 - p.momentum2**t) / (1 - p.momentum**t)
    return w - step * m / (np.sqrt(v) + p.delta)


def direction(p: SimpleNamespace, w: Array, slopes: Sequence[Array]) -> Array:
    t = len(slopes)
    m = mean(p.momentum, slopes) / (1 - p.momentum**t)
    v = mean(p.momentum2, [slope**2 for slope in slopes]) / (1 - p.momentum2**t)
    return m / (np.sqrt(v) + p.delta) + p.weight_decay * w


def adamw(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    return w - rate * direction(p, w, slopes)


def lamb(p: SimpleNamespace, rate: float, w: Array, slopes: Sequence[Array]) -> Array:
    update = direction(p, w, slopes)
    ratio = np.linalg.norm(w) / np.linalg.norm(update) if w.any() and update.any() else 1
    return w - rate * ratio * update


CASES = [
    SolverCase("AdaDelta", "momentum: 0.9 delta: 1e-4", adadelta),
    SolverCase("AdaGrad", "delta: 1e-3", adagrad),
    SolverCase("Adam", "momentum: 0.9 momentum2: 0.99 delta: 1e-2", adam),
    SolverCase("AdamW", "momentum: 0.9 weight_decay: 0.1", adamw),
    SolverCase("AdamW", "momentum: 0.8 momentum2: 0.9 delta: 1e-2", adamw),
    SolverCase("LAMB", "momentum: 0.9 delta: 1e-6 weight_decay: 0.1", lamb),
    SolverCase("LAMB", "momentum2: 0.9", lamb),
    SolverCase("Nesterov", "momentum: 0.9", nesterov),
    SolverCase("RMSProp", "rms_decay: 0.9 delta: 1e-3", rmsprop),
    SolverCase("SGD", "momentum: 0.9", sgd),
]
