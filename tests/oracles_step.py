"""A training loop in numpy float64, written from Caffe's update rule; it knows nothing of kdnet.

The net is a two-layer classifier: relu(x·w1ᵀ + b1)·w2ᵀ + b2, softmax, mean cross entropy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray
Arrays = dict[str, Array]
NAMES = ("w1", "b1", "w2", "b2")


@dataclass(frozen=True)
class Recipe:
    """A solver; multipliers are by weight name, 1 where none is given. ``clip`` -1 is off."""

    rates: Sequence[float]
    momentum: float = 0.0
    decay: float = 0.0
    l1: bool = False
    clip: float = -1.0
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    decay_mult: Mapping[str, float] = field(default_factory=dict)


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def loss_and_gradients(
    weights: Mapping[str, Array], x: Array, labels: Array
) -> tuple[float, Arrays]:
    """The mean cross entropy of a batch, and its derivative by each weight."""
    count = len(x)
    hidden = x @ weights["w1"].T + weights["b1"]
    active = np.maximum(hidden, 0)
    chances = softmax(active @ weights["w2"].T + weights["b2"])
    loss = -np.log(chances[np.arange(count), labels]).mean()
    d_scores = chances.copy()
    d_scores[np.arange(count), labels] -= 1
    d_scores /= count
    d_hidden = (d_scores @ weights["w2"]) * (hidden > 0)
    found = {
        "w1": d_hidden.T @ x,
        "b1": d_hidden.sum(axis=0),
        "w2": d_scores.T @ active,
        "b2": d_scores.sum(axis=0),
    }
    return float(loss), found


def train(
    weights: Mapping[str, Array], batches: Sequence[Sequence[tuple[Array, Array]]], recipe: Recipe
) -> tuple[list[float], Arrays, Arrays]:
    """Losses, weights and history after a step for each element of ``batches``.

    A step has one micro-batch or several: their gradients are summed, clipped together by their
    norm, divided by their number, and decayed; then h ← momentum·h + rate·g and w ← w − h.
    """
    current = {name: np.asarray(weights[name], np.float64) for name in NAMES}
    history = {name: np.zeros_like(current[name]) for name in NAMES}
    losses = []
    for rate, micro_batches in zip(recipe.rates, batches, strict=True):
        parts = [loss_and_gradients(current, x, labels) for x, labels in micro_batches]
        losses.append(float(np.mean([loss for loss, _ in parts])))
        total = {name: sum(found[name] for _, found in parts) for name in NAMES}
        norm = np.sqrt(sum((gradient**2).sum() for gradient in total.values()))
        factor = recipe.clip / norm if 0 <= recipe.clip < norm else 1.0
        for name in NAMES:
            gradient = total[name] * factor / len(parts)
            decay = recipe.decay * recipe.decay_mult.get(name, 1.0)
            gradient += decay * (np.sign(current[name]) if recipe.l1 else current[name])
            step = rate * recipe.lr_mult.get(name, 1.0) * gradient
            history[name] = recipe.momentum * history[name] + step
            current[name] = current[name] - history[name]
    return losses, current, history
