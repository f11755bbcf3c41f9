"""Class scores cut down to the k largest, and made whole again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Classes = NDArray[np.int32]

LOGITS, PROBABILITIES = "logits", "probabilities"


def largest(scores: Floats, k: int, form: str) -> tuple[Floats, Classes, Floats]:
    """The k largest scores of each row, their classes, and what the others come to together.

        logits:         r = log Σ_others exp(v)
        probabilities:  r = Σ_others p

    Shapes:
        scores  (N, C), k < C
        ->      (N, k) falling; (N, k); (N)
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    classes = order[:, :k]
    rest = np.take_along_axis(scores, order[:, k:], axis=1).astype(np.float64)
    if form == LOGITS:
        top = rest.max(axis=1)
        together = top + np.log(np.exp(rest - top[:, None]).sum(axis=1))
    else:
        together = rest.sum(axis=1)
    kept = np.take_along_axis(scores, classes, axis=1)
    return kept, classes.astype(np.int32), together.astype(np.float32)


def whole(values: Floats, classes: Classes, rest: Floats, *, count: int, form: str) -> Floats:
    """All ``count`` scores of each row: the k known ones, the rest spread evenly over the others.

        logits:         v = r - log(C - k)
        probabilities:  p = r / (C - k)

    So the softmax of logits gives the k classes exactly their probabilities.

    Shapes:
        values, classes  (N, k)
        rest             (N)
        ->               (N, C)
    """
    others = max(1, count - values.shape[1])
    each = rest - np.float32(np.log(others)) if form == LOGITS else rest / np.float32(others)
    found = np.repeat(each.astype(np.float32)[:, None], count, axis=1)
    np.put_along_axis(found, classes.astype(np.int64), values.astype(np.float32), axis=1)
    return found
