"""Rows of Filter."""

from __future__ import annotations

import numpy as np

from tables.cases import Array, LayerCase, fixed, normal


def _kept(x: Array, selector: Array) -> Array:
    """The chosen items, then the first of them (of all, where there is none) to the end."""
    order = np.flatnonzero(selector)
    first = order[0] if order.size else 0
    return x[np.append(order, np.full(len(x) - order.size, first)).astype(int)]


def _two(x_0: Array, x_1: Array, selector: Array) -> tuple[Array, Array]:
    return _kept(x_0, selector), _kept(x_1, selector)


CASES = (
    LayerCase(
        "Filter/all",
        'type: "Filter"',
        [(3, 2), (3,)],
        _kept,
        domain=[normal, fixed(1, -0.5, 2)],
        wrt=["bottom0"],
    ),
    LayerCase(
        "Filter/none",
        'type: "Filter"',
        [(3, 2), (3, 1, 1)],
        _kept,
        domain=[normal, fixed(0, 0, 0)],
        wrt=["bottom0"],
    ),
    LayerCase(
        "Filter/some",
        'type: "Filter"',
        [(5, 2, 2), (5, 1)],
        _kept,
        domain=[normal, fixed(0, 1, 0, 1, 1)],
        wrt=["bottom0"],
    ),
    LayerCase(
        "Filter/two",
        'type: "Filter"',
        [(4, 3), (4,), (4,)],
        _two,
        domain=[normal, normal, fixed(0, 1, 0, 1)],
        wrt=["bottom0", "bottom1"],
        tops=2,
    ),
)
