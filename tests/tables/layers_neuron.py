"""Rows of the neuron layers."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_layers as oracle

from tables.cases import LayerCase, away_from, positive, uniform

AWAY = away_from(0.0, 0.05)

CASES = (
    LayerCase(
        "Dropout/quarter",
        'type: "Dropout" dropout_param { dropout_ratio: 0.25 }',
        [(3, 4, 2)],
        partial(oracle.dropout, ratio=0.25),
        noise=uniform(0, 1),
    ),
    LayerCase(
        "Dropout/ratio_0",
        'type: "Dropout" dropout_param { dropout_ratio: 0 }',
        [(3, 4)],
        lambda x: x,
    ),
    LayerCase(
        "Dropout/ratio_default",
        'type: "Dropout"',
        [(6,)],
        partial(oracle.dropout, ratio=0.5),
        noise=uniform(0, 1),
    ),
    LayerCase("Dropout/test_phase", 'type: "Dropout"', [(3, 4)], lambda x: x, phase="TEST"),
    LayerCase(
        "Power/all",
        'type: "Power" power_param { power: 1.5 scale: 0.5 shift: 2 }',
        [(2, 3)],
        lambda x: (2 + 0.5 * x) ** 1.5,
        domain=positive,
    ),
    LayerCase("Power/identity", 'type: "Power"', [(2, 3)], lambda x: x),
    LayerCase(
        "Power/inverse",
        'type: "Power" power_param { power: -1 shift: 1 }',
        [(2, 3)],
        lambda x: 1 / (1 + x),
        domain=positive,
    ),
    LayerCase(
        "Power/one_over_t",
        'type: "Power" power_param { scale: 0.25 }',
        [(2, 3)],
        lambda x: x / 4,
    ),
    LayerCase(
        "Power/square",
        'type: "Power" power_param { power: 2 scale: -0.5 shift: 1 }',
        [(2, 3)],
        lambda x: (1 - x / 2) ** 2,
    ),
    LayerCase(
        "Power/square_root",
        'type: "Power" power_param { power: 0.5 }',
        [(2, 3)],
        np.sqrt,
        domain=positive,
    ),
    LayerCase(
        "Power/zero",
        'type: "Power" power_param { power: 0 scale: 2 }',
        [(2, 3)],
        np.ones_like,
    ),
    LayerCase(
        "Power/zero_scale",
        'type: "Power" power_param { power: 3 scale: 0 shift: -2 }',
        [(2, 3)],
        lambda x: np.full_like(x, -8.0),
    ),
    LayerCase("ReLU/default", 'type: "ReLU"', [(2, 3, 2)], oracle.relu, domain=AWAY),
    LayerCase(
        "ReLU/negative_slope",
        'type: "ReLU" relu_param { negative_slope: 0.125 }',
        [(2, 3, 2)],
        partial(oracle.relu, slope=0.125),
        domain=AWAY,
    ),
    LayerCase("Sigmoid/default", 'type: "Sigmoid"', [(2, 3, 2)], oracle.sigmoid),
    LayerCase("TanH/default", 'type: "TanH"', [(2, 3, 2)], np.tanh),
)
