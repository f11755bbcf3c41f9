"""What a row of the op and layer tables says, and the domains that inputs are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Domain = Callable[[np.random.Generator, Shape], Array]


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Standard normal."""
    return rng.standard_normal(shape)


def uniform(low: float, high: float) -> Domain:
    """Evenly between two bounds."""
    return lambda rng, shape: rng.uniform(low, high, shape)


def positive(rng: np.random.Generator, shape: Shape) -> Array:
    """Between 0.5 and 2: for logarithms, roots and divisors."""
    return rng.uniform(0.5, 2.0, shape)


def away_from(point: float, gap: float) -> Domain:
    """Normal about ``point``, never closer to it than ``gap``: for kinks."""

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        offset = rng.standard_normal(shape)
        return point + offset + np.where(offset < 0, -gap, gap)

    return draw


def distinct(rng: np.random.Generator, shape: Shape) -> Array:
    """A shuffled even grid about 0 with steps of 1/16: for maxima, which then never tie."""
    count = prod(shape)
    grid = (np.arange(count) - count // 2 + 0.5) / 16
    return rng.permutation(grid).reshape(shape)


def tied(rng: np.random.Generator, shape: Shape) -> Array:
    """A few whole numbers, so that most windows hold their maximum more than once."""
    return rng.integers(0, 3, shape).astype(np.float64)


def integers(count: int, dtype: Any = np.int64) -> Domain:
    """Whole numbers in [0, count): indices (int64), or labels with a float ``dtype``."""
    return lambda rng, shape: rng.integers(0, count, shape).astype(dtype)


def booleans(rng: np.random.Generator, shape: Shape) -> Array:
    """True or False."""
    return rng.integers(0, 2, shape).astype(bool)


def fixed(*values: float, dtype: Any = np.float64) -> Domain:
    """The values themselves, in the input's shape."""
    return lambda _rng, shape: np.array(values, dtype).reshape(shape)


@dataclass(frozen=True)
class OpCase:
    """One op of the standard with a gradient rule.

    ``shapes`` has an entry for each input: a shape (drawn from ``domain``, or from its own entry
    where that is a sequence), a list of integers (a constant, such as axes), a number (a constant
    of the graph's float type) or None (absent).
    ``wrt`` are the inputs whose gradients are checked. ``lowerings`` forces the choices of
    kdnet.autodiff.policy by function name. ``gradient_of`` names the outputs (``y0`` and so on)
    at which gradients arrive, by default all.
    """

    id: str
    op: str
    shapes: Sequence[Shape | list[int] | float | None]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    domain: Domain | Sequence[Domain] = normal
    wrt: Sequence[int] = (0,)
    tol: float = 1e-6
    outputs: int = 1
    provider: str = "cpu"
    lowerings: Mapping[str, str] = field(default_factory=dict)
    ort_tol: float = 2e-5
    gradient_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerCase:
    """One layer with its parameters.

    ``prototxt`` is the layer's text without name, bottoms and tops; the tops are ``top0`` and so
    on, ``tops`` of them. ``bottoms`` are shapes, drawn from ``domain`` (one for all, or one each);
    weights are drawn from ``weights`` in the same way. ``oracle(*bottoms, *weights)`` returns the
    top or a tuple of tops in float64. ``wrt`` names the checked inputs, ``bottom0`` and so on and
    ``weight0`` and so on; by default all of them. ``noise`` is the domain of a layer's noise,
    which the oracle then takes as ``noise=``.
    """

    id: str
    prototxt: str
    bottoms: Sequence[Shape]
    oracle: Callable[..., Any]
    domain: Domain | Sequence[Domain] = normal
    weights: Domain | Sequence[Domain] = normal
    wrt: Sequence[str] | None = None
    tol: float = 1e-6
    ort_tol: float = 2e-5
    tops: int = 1
    phase: str = "TRAIN"
    noise: Domain | None = None


def draw(
    domain: Domain | Sequence[Domain], index: int, rng: np.random.Generator, shape: Shape
) -> Array:
    """An array for input ``index``, from its own domain or the common one."""
    chosen = domain if callable(domain) else domain[index]
    return chosen(rng, shape)
