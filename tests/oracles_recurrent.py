"""What recurrent layers compute, in numpy float64, one number of one step at a time or nearly so.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm_unit(c: Array, z: Array, cont: Array) -> tuple[Array, Array]:
    """The cells and outputs after one step: gates lie in z one kind after the other."""
    enter, forget, leave, value = np.moveaxis(z.reshape(*c.shape[:2], 4, c.shape[2]), 2, 0)
    kept = cont[..., np.newaxis] * c
    after = _sigmoid(forget) * kept + _sigmoid(enter) * np.tanh(value)
    return after, _sigmoid(leave) * np.tanh(after)


def lstm(
    x: Array, cont: Array, *more: Array, static: bool = False, exposed: bool = False
) -> tuple[Array, ...]:
    """All outputs; with ``exposed`` also the last output and the last cells."""
    bottoms, weights = list(more), list(more)[static + 2 * exposed :]
    w_x, b, w_h = weights[0], weights[1], weights[-1]
    streams, units = x.shape[1], w_h.shape[1]
    h, c = np.zeros((2, streams, units))
    if exposed:
        h, c = bottoms[static][0], bottoms[static + 1][0]
    outputs = []
    for now, goes_on in zip(x.reshape(*x.shape[:2], -1), cont, strict=True):
        z = now @ w_x.T + b + (goes_on[:, np.newaxis] * h) @ w_h.T
        if static:
            z = z + bottoms[0].reshape(streams, -1) @ weights[2].T
        after, out = lstm_unit(c[np.newaxis], z[np.newaxis], goes_on[np.newaxis])
        c, h = after[0], out[0]
        outputs.append(h)
    y = np.stack(outputs)
    return (y, h[np.newaxis], c[np.newaxis]) if exposed else (y,)


def rnn(
    x: Array, cont: Array, *more: Array, static: bool = False, exposed: bool = False
) -> tuple[Array, ...]:
    """All outputs; with ``exposed`` also the last hidden state."""
    bottoms, weights = list(more), list(more)[static + exposed :]
    w_x, b, w_h, w_o, b_o = [*weights[:2], *weights[-3:]]
    streams = x.shape[1]
    h = bottoms[static][0] if exposed else np.zeros((streams, len(w_h)))
    outputs = []
    for now, goes_on in zip(x.reshape(*x.shape[:2], -1), cont, strict=True):
        total = now @ w_x.T + b + (goes_on[:, np.newaxis] * h) @ w_h.T
        if static:
            total = total + bottoms[0].reshape(streams, -1) @ weights[2].T
        h = np.tanh(total)
        outputs.append(np.tanh(h @ w_o.T + b_o))
    y = np.stack(outputs)
    return (y, h[np.newaxis]) if exposed else (y,)
