"""Rows of the neuron layers beyond the common ones."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_catalogue as oracle

from tables.cases import LayerCase, away_from, positive

AWAY = away_from(0.0, 0.05)

CASES = (
    LayerCase("AbsVal/default", 'type: "AbsVal"', [(2, 3, 2)], np.abs, domain=AWAY),
    LayerCase("BNLL/default", 'type: "BNLL"', [(2, 3)], lambda x: np.log1p(np.exp(x))),
    LayerCase(
        "Clip/both",
        'type: "Clip" clip_param { min: -0.5 max: 0.75 }',
        [(4, 5)],
        lambda x: np.clip(x, -0.5, 0.75),
    ),
    LayerCase(
        "Clip/one_value",
        'type: "Clip" clip_param { min: 2 max: 2 }',
        [(2, 3)],
        lambda x: np.full_like(x, 2.0),
    ),
    LayerCase(
        "ELU/alpha",
        'type: "ELU" elu_param { alpha: 0.5 }',
        [(2, 3, 2)],
        partial(oracle.elu, alpha=0.5),
        domain=AWAY,
    ),
    LayerCase("ELU/default", 'type: "ELU"', [(5,)], oracle.elu, domain=AWAY),
    LayerCase(
        "Exp/base_scale_shift",
        'type: "Exp" exp_param { base: 2 scale: -0.5 shift: 0.25 }',
        [(2, 3)],
        lambda x: 2 ** (0.25 - 0.5 * x),
    ),
    LayerCase("Exp/default", 'type: "Exp"', [(2, 3)], np.exp),
    LayerCase(
        "Exp/shift",
        'type: "Exp" exp_param { shift: -1 }',
        [(2, 3)],
        lambda x: np.exp(x) / np.e,
    ),
    LayerCase(
        "Log/base_scale_shift",
        'type: "Log" log_param { base: 2 scale: 0.5 shift: 1 }',
        [(2, 3)],
        lambda x: np.log2(1 + x / 2),
        domain=positive,
    ),
    LayerCase("Log/default", 'type: "Log"', [(2, 3)], np.log, domain=positive),
    LayerCase("PReLU/channels", 'type: "PReLU"', [(2, 3, 2, 2)], oracle.prelu, domain=AWAY),
    LayerCase("PReLU/rows", 'type: "PReLU"', [(4, 3)], oracle.prelu, domain=AWAY),
    LayerCase(
        "PReLU/shared",
        'type: "PReLU" prelu_param { channel_shared: true }',
        [(2, 3, 2)],
        oracle.prelu,
        domain=AWAY,
    ),
    LayerCase(
        "Swish/beta",
        'type: "Swish" swish_param { beta: 1.5 }',
        [(2, 3)],
        partial(oracle.swish, beta=1.5),
    ),
    LayerCase("Swish/default", 'type: "Swish"', [(2, 3)], oracle.swish),
    LayerCase(
        "Threshold/default", 'type: "Threshold"', [(4, 3)], oracle.threshold, wrt=[], domain=AWAY
    ),
    LayerCase(
        "Threshold/value",
        'type: "Threshold" threshold_param { threshold: 0.5 }',
        [(4, 3)],
        partial(oracle.threshold, above=0.5),
        wrt=[],
    ),
)
