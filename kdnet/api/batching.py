"""Arrays of any length through nets of one batch size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Arrays = NDArray[Any] | Sequence[NDArray[Any]]


def in_batches(arrays: Mapping[str, Arrays], size: int) -> Iterator[dict[str, Floats]]:
    """The same rows of each array, ``size`` at a time; the last batch is filled up with zeros."""
    whole = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    counts = {len(array) for array in whole.values()}
    if len(counts) != 1:
        raise ValueError(f"the arrays have different lengths: {sorted(counts)}")
    for start in range(0, counts.pop(), size):
        rows = {name: array[start : start + size] for name, array in whole.items()}
        yield {name: _filled(array, size) for name, array in rows.items()}


def _filled(rows: Floats, size: int) -> Floats:
    missing = size - len(rows)
    if not missing:
        return rows
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), np.float32)])


def copied(arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """Copies of a net's own arrays, which the next run overwrites."""
    return {name: array.copy() for name, array in arrays.items()}


def collected(
    found: Iterable[Mapping[str, Floats]], count: int | None = None
) -> dict[str, Floats]:
    """The batches' arrays joined, cut to ``count`` rows; numbers are one a batch."""
    parts: dict[str, list[Floats]] = {}
    for batch in found:
        for name, array in batch.items():
            parts.setdefault(name, []).append(np.atleast_1d(array).copy())
    return {name: np.concatenate(arrays)[:count] for name, arrays in parts.items()}
