"""Whole-number labels beside class scores: what the layers that read both share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer


@dataclass(frozen=True)
class Labels:
    """Labels against the scores' class axis.

    Attributes:
        hit: bool, the shape of the scores: true at each item's label. An item whose label is no
            class hits nothing, so nothing is ever read out of bounds.
        ignored: bool, without the class axis: true where the label is ignore_label; None where
            no label is ignored.
    """

    hit: Tensor
    ignored: Tensor | None


def read_labels(
    g: Emitter, scores: Tensor, labels: Tensor, axis: int, ignore: int | None
) -> Labels:
    """Compare labels (float, whole numbers) with the class numbers along ``axis``."""
    classes = scores.shape[axis]
    outer, inner = scores.shape[:axis], scores.shape[axis + 1 :]
    whole = g.reshape(g.cast(labels, np.int64), (*outer, 1, *inner))
    numbers = np.arange(classes).reshape(classes, *[1] * len(inner))
    hit = g.equal(whole, g.constant(numbers, np.int64))
    if ignore is None:
        return Labels(hit, None)
    return Labels(hit, g.reshape(g.equal(whole, ignore), (*outer, *inner)))


def check_labels(layer: Layer, scores: Tensor, labels: Tensor, axis: int) -> None:
    """Require one label for each position outside the class axis."""
    positions = scores.size // scores.shape[axis]
    same_items = scores.shape[:1] == labels.shape[:1]
    layer.require_shape(
        same_items and labels.size == positions,
        bottom=layer.label_bottom,
        say=f"labels of shape {labels.shape} for scores of shape {scores.shape} "
        f"with their classes on axis {axis}",
        help=f"labels must have the shape {_expected(scores, axis)}",
    )


def _expected(scores: Tensor, axis: int) -> tuple[int, ...]:
    return (*scores.shape[:axis], *scores.shape[axis + 1 :])
