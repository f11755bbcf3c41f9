"""How two weight files differ: layers, shapes, and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isinf

import numpy as np

from kdnet.weights.model import Array
from weights_tools.parameters import LayerInfo, Weights
from weights_tools.tables import Row, table

_CHUNK = 1 << 18
IDENTICAL, EQUAL, CLOSE, DIFFERS = "identical", "equal", "close", "differs"
OTHER_SHAPE, OTHER_COUNT = "other shape", "other count"
SAME = frozenset({IDENTICAL, EQUAL, CLOSE})


@dataclass(frozen=True)
class BlobDifference:
    """One blob of a layer that both files have.

    ``status`` is identical (every bit, as stored), equal (every value), close (within the
    tolerance), differs, or other shape. ``max_abs`` and ``max_relative`` are the largest
    |a - b| and |a - b| / max(|a|, |b|), infinite where only one is finite, None where shapes
    differ.
    """

    blob: int
    status: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    max_abs: float | None = None
    max_relative: float | None = None


@dataclass(frozen=True)
class LayerDifference:
    """One layer of either file: ``status`` is both, only a, only b, or other count of blobs."""

    name: str
    status: str
    blobs: tuple[BlobDifference, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs beyond the tolerance."""
        return self.status == "both" and all(blob.status in SAME for blob in self.blobs)


@dataclass(frozen=True)
class Difference:
    """Two files, layer by layer."""

    a: str
    b: str
    tolerance: float
    layers: tuple[LayerDifference, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs beyond the tolerance."""
        return all(layer.same for layer in self.layers)

    def as_json(self) -> str:
        """One JSON object; an infinite difference is the word."""
        layers = [
            {"name": layer.name, "status": layer.status, "blobs": [*map(_blob_json, layer.blobs)]}
            for layer in self.layers
        ]
        facts = {"same": self.same, "a": self.a, "b": self.b, "tolerance": self.tolerance}
        return json.dumps({**facts, "layers": layers}, indent=1)

    def text(self) -> str:
        """A row for all that is not identical, and a summary line."""
        rows = [row for layer in self.layers for row in _rows(layer)]
        head: Row = ("layer", "blob", "status", "max abs", "max relative")
        lines = [table([head, *rows], right=(3, 4))] if rows else []
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        blobs = [blob.status for layer in self.layers for blob in layer.blobs]
        counts = {status: blobs.count(status) for status in dict.fromkeys(sorted(blobs))}
        told = [f"{count} {status}" for status, count in counts.items()]
        parts = [f"{len(blobs)} blobs compared: {', '.join(told)}" if told else "0 blobs compared"]
        for status in ("only a", "only b", OTHER_COUNT):
            found = sum(layer.status == status for layer in self.layers)
            if found:
                parts.append(f"{found} layers {_words(status)}")
        return "; ".join(parts)


def _blob_json(blob: BlobDifference) -> dict[str, object]:
    """A blob's facts; JSON has no number for infinity."""
    facts: dict[str, object] = asdict(blob)
    return {
        key: "infinite" if isinstance(value, float) and isinf(value) else value
        for key, value in facts.items()
    }


def _words(status: str) -> str:
    return {"only a": "only in A", "only b": "only in B"}.get(status, "with other counts of blobs")


def _rows(layer: LayerDifference) -> Iterator[Row]:
    if layer.status != "both":
        yield (layer.name, "-", _words(layer.status), "-", "-")
    for blob in layer.blobs:
        if blob.status == IDENTICAL:
            continue
        status = blob.status
        if status == OTHER_SHAPE:
            status = " and ".join("x".join(map(str, shape)) or "scalar" for shape in blob.shapes)
        yield (
            layer.name,
            str(blob.blob),
            status,
            _number(blob.max_abs),
            _number(blob.max_relative),
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def file_difference(a: str, b: str, *, tolerance: float = 0.0) -> Difference:
    """Compare two weight files of any formats by layer name, one blob in memory at a time.

    Layers without blobs do not count. NaN equals NaN.

    Args:
        a: One file.
        b: The other.
        tolerance: The largest |a - b| of a value that counts as close.

    Raises:
        WeightsError: as :func:`kdnet.weights.read_weights`.
    """
    first, second = Weights(a), Weights(b)
    ours, theirs = first.by_layer, second.by_layer
    found = []
    for name, layer in ours.items():
        other = theirs.get(name)
        if other is None:
            found.append(LayerDifference(name, "only a"))
        elif len(other.shapes) != len(layer.shapes):
            found.append(LayerDifference(name, OTHER_COUNT))
        else:
            blobs = _compare(first, second, (layer, other), tolerance)
            found.append(LayerDifference(name, "both", tuple(blobs)))
    found += [LayerDifference(name, "only b") for name in theirs if name not in ours]
    return Difference(a, b, tolerance, tuple(found))


def _compare(
    first: Weights, second: Weights, layers: tuple[LayerInfo, LayerInfo], tolerance: float
) -> Iterator[BlobDifference]:
    for index, name in enumerate(layers[0].parameters):
        shapes = (layers[0].shapes[index], layers[1].shapes[index])
        if shapes[0] != shapes[1]:
            yield BlobDifference(index, OTHER_SHAPE, shapes)
            continue
        a, b = first[name], second[name]
        if layers[0].stored[index] == layers[1].stored[index] and same_bytes(a, b):
            yield BlobDifference(index, IDENTICAL, shapes, 0.0, 0.0)
            continue
        largest, relative = _largest(a, b)
        status = EQUAL if largest == 0 else CLOSE if largest <= tolerance else DIFFERS
        yield BlobDifference(index, status, shapes, largest, relative)


def same_bytes(a: Array, b: Array) -> bool:
    """Whether two arrays of one shape are of one type and the same bits, a piece at a time."""
    if a.dtype != b.dtype:
        return False
    ours, theirs = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return all(
        np.array_equal(ours[start : start + _CHUNK], theirs[start : start + _CHUNK])
        for start in range(0, ours.size, _CHUNK)
    )


def _largest(a: Array, b: Array) -> tuple[float, float]:
    """The largest absolute and relative difference, in float64 a piece at a time."""
    largest = relative = 0.0
    flat, other = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        ours = flat[start : start + _CHUNK].astype(np.float64)
        theirs = other[start : start + _CHUNK].astype(np.float64)
        differing = ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
        if not differing.any():
            continue
        ours, theirs = ours[differing], theirs[differing]
        with np.errstate(over="ignore", invalid="ignore"):
            gap = np.abs(ours - theirs)
            ratio = gap / np.maximum(np.abs(ours), np.abs(theirs))
        gap[~np.isfinite(gap)] = np.inf
        ratio[~np.isfinite(ratio)] = np.inf
        largest = max(largest, float(gap.max()))
        relative = max(relative, float(ratio.max()))
    return largest, relative
