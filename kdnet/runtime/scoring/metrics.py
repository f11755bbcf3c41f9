"""Metrics as functions of arrays: scores (N, K) or errors (N), in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

BINS = 15
KEPT = 0.95
SHARPEST, FLATTEST = 1e-3, 1e3


def log_softmax(scores: NDArray[Any]) -> Floats:
    """ln softmax of each row."""
    centred = np.asarray(scores, np.float64) - scores.max(axis=1, keepdims=True)
    shifted: Floats = centred - np.log(np.exp(centred).sum(axis=1, keepdims=True))
    return shifted


def top_k(scores: NDArray[Any], labels: Integers, k: int) -> float:
    """The share of rows whose label is among the k best; a tie counts against it, as in Caffe."""
    own = scores[np.arange(len(labels)), labels]
    rank = (scores >= own[:, None]).sum(axis=1)
    return float((rank <= k).mean())


def cross_entropy(scores: NDArray[Any], labels: Integers) -> float:
    """Mean of −ln softmax(z)[label]."""
    return float(-log_softmax(scores)[np.arange(len(labels)), labels].mean())


def fitted_temperature(scores: NDArray[Any], labels: Integers) -> float:
    """The temperature T that minimises the cross entropy of softmax(z / T).

    In β = 1/T the cross entropy is convex, with derivative E[Σ_k p_k z_k − z_label]; its root is
    found by bisection of ln β, between T = 1e-3 and 1e3.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    z = np.asarray(scores, np.float64)
    own = z[np.arange(len(labels)), labels]

    def slope(beta: float) -> float:
        p = np.exp(log_softmax(z * beta))
        return float(((p * z).sum(axis=1) - own).mean())

    low, high = math.log(1 / FLATTEST), math.log(1 / SHARPEST)
    for _ in range(60):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)


def calibration_error(scores: NDArray[Any], labels: Integers) -> float:
    """Σ_b n_b/N · |accuracy_b − confidence_b| over 15 bins of equal width.

    Source: Guo et al. 2017, equation 3.
    """
    logs = log_softmax(scores)
    confidence, right = np.exp(logs.max(axis=1)), logs.argmax(axis=1) == labels
    bins = np.minimum(np.ceil(confidence * BINS).astype(np.int64) - 1, BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(labels))


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The share of rows with the same best class."""
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


def divergence(teacher: NDArray[Any], student: NDArray[Any]) -> float:
    """Mean KL(softmax(teacher) ‖ softmax(student)), in nats."""
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def confidences(scores: NDArray[Any]) -> Floats:
    """The largest probability of each row."""
    found: Floats = np.exp(log_softmax(scores).max(axis=1))
    return found


def rejection_threshold(confidence: Floats, right: Booleans) -> float | None:
    """The confidence below which an input counts as of no class; None where nothing is right.

    It keeps 95% of the rightly classified items: the 5% quantile of their largest probability.

    Source: Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples".
    """
    return float(np.quantile(confidence[right], 1 - KEPT)) if right.any() else None


def ranking_area(inside: Floats, outside: Floats) -> float:
    """AUROC: the chance that an item of a class is more confident than one of none."""
    values = np.concatenate([inside, outside])
    order = np.argsort(values, kind="stable")
    _, first, count = np.unique(values[order], return_index=True, return_counts=True)
    # Ties share the mean of their ranks.
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(first + (count - 1) / 2, count)
    wins = ranks[: len(inside)].sum() - len(inside) * (len(inside) - 1) / 2
    return float(wins / (len(inside) * len(outside)))


def binary_cross_entropy(logits: NDArray[Any], targets: NDArray[Any]) -> float:
    """Mean of ln(1 + e^x) − x·t."""
    x = np.asarray(logits, np.float64)
    return float((np.logaddexp(0.0, x) - x * targets).mean())
