"""Gathers what the heads of a net say, batch by batch, up to a limit of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile.assemble import WATCHED
from kdnet.compile.heads import Head

Array = NDArray[Any]

# Of all heads together: half a gigabyte in float32.
LIMIT_VALUES = 1 << 27


class Collector:
    """Rows of every head: scores (items, classes), or errors (items) of reconstructions.

    Args:
        heads: what is gathered.
        limit: values that are kept in all; later batches are counted in ``left_out``.
    """

    def __init__(self, heads: Sequence[Head], limit: int = LIMIT_VALUES) -> None:
        self.heads = heads
        self.left_out = 0
        self._room = limit
        self._rows: dict[str, list[Array]] = {head.blob: [] for head in heads}
        self._targets: dict[str, list[Array]] = {head.blob: [] for head in heads}

    def add_watched(self, outputs: Mapping[str, Array]) -> None:
        """One batch, as a program that watches :func:`kdnet.compile.heads.tensors_of` tells it."""
        found = {
            role: {
                head.blob: outputs[f"{WATCHED}/{role}/{head.blob}"]
                for head in self.heads
                if f"{WATCHED}/{role}/{head.blob}" in outputs
            }
            for role in ("head", "target")
        }
        self.add(found["head"], found["target"])

    def add(self, predictions: Mapping[str, Array], targets: Mapping[str, Array]) -> None:
        """One batch, by the head's blob."""
        taken = sum(predictions[head.blob].size for head in self.heads)
        if taken > self._room:
            self.left_out += 1
            return
        self._room -= taken
        for head in self.heads:
            rows, target = _rows(head, predictions[head.blob], targets.get(head.blob))
            self._rows[head.blob].append(rows)
            if target is not None:
                self._targets[head.blob].append(target)

    def rows(self, blob: str) -> Array:
        """Everything that a head said."""
        return np.concatenate(self._rows[blob])

    def targets(self, blob: str) -> Array | None:
        """What it is compared with; None where there is nothing."""
        found = self._targets[blob]
        return np.concatenate(found) if found else None


def _rows(head: Head, predicted: Array, target: Array | None) -> tuple[Array, Array | None]:
    if head.kind == "values" and target is not None:
        items = len(predicted)
        gap = predicted.reshape(items, -1).astype(np.float64) - target.reshape(items, -1)
        return (gap**2).mean(axis=1), None
    if head.kind == "binary":
        return predicted.reshape(-1), None if target is None else target.reshape(-1)
    moved = np.moveaxis(predicted, head.axis, -1)
    rows = np.array(moved.reshape(-1, moved.shape[-1]), np.float32)
    if head.probabilities:
        rows = np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    return rows, None if target is None else target.reshape(-1).astype(np.int64)
