"""Rows of the layers that make few numbers of many."""

from __future__ import annotations

from functools import partial

import oracles_catalogue as oracle

from tables.cases import LayerCase, away_from, distinct, tied

CASES = (
    LayerCase(
        "ArgMax/axis",
        'type: "ArgMax" argmax_param { axis: -2 top_k: 2 }',
        [(2, 4, 3)],
        partial(oracle.argmax_along, axis=-2, top_k=2),
        domain=tied,
        wrt=[],
    ),
    LayerCase(
        "ArgMax/axis_value",
        'type: "ArgMax" argmax_param { axis: 1 top_k: 2 out_max_val: true }',
        [(2, 4, 3)],
        partial(oracle.argmax_along, axis=1, top_k=2, value=True),
        domain=distinct,
        wrt=[],
    ),
    LayerCase(
        "ArgMax/default", 'type: "ArgMax"', [(3, 2, 2, 2)], oracle.argmax, domain=distinct, wrt=[]
    ),
    LayerCase("ArgMax/ties", 'type: "ArgMax"', [(4, 7)], oracle.argmax, domain=tied, wrt=[]),
    LayerCase(
        "ArgMax/top_k_value",
        'type: "ArgMax" argmax_param { top_k: 3 out_max_val: true }',
        [(2, 5)],
        partial(oracle.argmax, top_k=3, value=True),
        domain=tied,
        wrt=[],
    ),
    LayerCase(
        "Reduction/asum",
        'type: "Reduction" reduction_param { operation: ASUM axis: 1 coeff: 0.5 }',
        [(2, 3, 2)],
        lambda x: abs(x).sum((1, 2)) / 2,
        domain=away_from(0.0, 0.05),
    ),
    LayerCase(
        "Reduction/mean",
        'type: "Reduction" reduction_param { operation: MEAN axis: -1 coeff: -2 }',
        [(2, 3, 2)],
        lambda x: -2 * x.mean(-1),
    ),
    LayerCase("Reduction/sum", 'type: "Reduction"', [(2, 3)], lambda x: x.sum()),
    LayerCase(
        "Reduction/sumsq",
        'type: "Reduction" reduction_param { operation: SUMSQ }',
        [(2, 3)],
        lambda x: (x**2).sum(),
    ),
)
