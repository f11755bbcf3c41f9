"""Rows of the layers that carry a state from step to step."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_recurrent as oracle

from tables.cases import Array, LayerCase, Shape, fixed, normal

PARAMS = "recurrent_param { num_output: 3 %s }"
# Two streams: one begins at the first step, the other again at the second.
BEGINS = fixed(0, 1, 1, 0, 1, 1)
X, CONT = (3, 2, 4), (3, 2)
STATE = (1, 2, 3)


def small(rng: np.random.Generator, shape: Shape) -> Array:
    """Normal, a third as wide: gates that do not saturate."""
    return normal(rng, shape) / 3


def _row(kind: str, name: str, bottoms: list[Shape], tops: int = 1, **options: bool) -> LayerCase:
    exposed = options.get("exposed", False)
    trained = {"LSTM": 3, "RNN": 5}[kind] + options.get("static", False)
    return LayerCase(
        f"{kind}/{name}",
        f'type: "{kind}" {PARAMS % ("expose_hidden: true" if exposed else "")}',
        bottoms,
        partial(getattr(oracle, kind.lower()), **options),
        domain=[normal, BEGINS, *[normal] * (len(bottoms) - 2)],
        weights=small,
        wrt=[f"bottom{i}" for i in range(len(bottoms)) if i != 1]
        + [f"weight{i}" for i in range(trained)],
        tops=tops,
    )


CASES = (
    _row("LSTM", "basic", [X, CONT]),
    _row("LSTM", "exposed", [X, CONT, STATE, STATE], 3, exposed=True),
    _row("LSTM", "maps", [(3, 2, 2, 2), CONT]),
    _row("LSTM", "static", [X, CONT, (2, 5)], static=True),
    _row(
        "LSTM", "static_exposed", [X, CONT, (2, 2, 2), STATE, STATE], 3, static=True, exposed=True
    ),
    LayerCase(
        "LSTM/one_step",
        f'type: "LSTM" {PARAMS % ""}',
        [(1, 2, 4), (1, 2)],
        oracle.lstm,
        domain=[normal, fixed(1, 0)],
        weights=small,
        wrt=["bottom0", "weight0", "weight1"],
    ),
    LayerCase(
        "LSTMUnit/basic",
        'type: "LSTMUnit"',
        [(1, 2, 3), (1, 2, 12), (1, 2)],
        oracle.lstm_unit,
        domain=[normal, normal, fixed(0, 1)],
        wrt=["bottom0", "bottom1"],
        tops=2,
    ),
    _row("RNN", "basic", [X, CONT]),
    _row("RNN", "exposed", [X, CONT, STATE], 2, exposed=True),
    _row("RNN", "static", [X, CONT, (2, 5)], static=True),
    _row("RNN", "static_exposed", [X, CONT, (2, 5), STATE], 2, static=True, exposed=True),
)
