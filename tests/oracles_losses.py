"""What the losses of Caffe's catalogue compute, in numpy float64, item by item.

Nothing here imports kdnet. Bottoms come first, then parameters by keyword.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def hinge_loss(x: Array, labels: Array, *, power: int = 1) -> Array:
    total = 0.0
    for scores, label in zip(x.reshape(len(x), -1), labels.reshape(-1), strict=True):
        for k, score in enumerate(scores):
            margin = 1 - score if k == label else 1 + score
            total += max(0.0, margin) ** power
    return np.asarray(total / len(x))


def contrastive_loss(
    a: Array, b: Array, similar: Array, *, margin: float = 1.0, legacy: bool = False
) -> Array:
    total = 0.0
    for left, right, mark in zip(a, b, similar.reshape(-1), strict=True):
        distance = np.linalg.norm(left - right)
        apart = margin - distance**2 if legacy else max(0.0, margin - distance) ** 2
        total += distance**2 if int(mark) else max(0.0, apart)
    return np.asarray(total / (2 * len(a)))


def multinomial_logistic_loss(p: Array, labels: Array) -> Array:
    rows = p.reshape(len(p), -1)
    picked = [row[int(label)] for row, label in zip(rows, labels.reshape(-1), strict=True)]
    return np.asarray(-np.mean(np.log(np.maximum(picked, 1e-20))))


def infogain_loss(
    x: Array,
    labels: Array,
    matrix: Array,
    *,
    axis: int = 1,
    ignore: int | None = None,
    full: bool = False,
) -> tuple[Array, Array]:
    """The loss, and the probabilities."""
    powers = np.exp(x - x.max(axis, keepdims=True))
    p = powers / powers.sum(axis, keepdims=True)
    rows = np.moveaxis(p, axis, -1).reshape(-1, x.shape[axis])
    table = matrix.reshape(x.shape[axis], -1)
    total, counted = 0.0, 0
    for row, label in zip(rows, labels.reshape(-1).astype(int), strict=True):
        if label != ignore:
            total -= table[label] @ np.log(np.maximum(row, 1e-20))
            counted += 1
    return np.asarray(total / max(1, len(rows) if full else counted)), p
