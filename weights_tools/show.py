"""What a weight file holds, as a table or as JSON, one layer in memory at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from kdnet.weights import LayerBlobs, stream_weights
from kdnet.weights.model import Array
from weights_tools.tables import table

_CHUNK = 1 << 18


@dataclass(frozen=True)
class BlobFacts:
    """One blob: its shape, its type and size as stored, and statistics of its finite values.

    ``std`` is the population's. ``mean`` and ``std`` are None when no value is finite.
    ``zero_share`` is ``zeros`` by all values. ``sha256`` is of the values alone, little-endian and
    in C order, as float32 (16-bit floats too) or float64: it tells equal values in any format.
    """

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    mean: float | None
    std: float | None
    zeros: int
    zero_share: float
    non_finite: int
    sha256: str


@dataclass(frozen=True)
class LayerFacts:
    """One layer: its name, its Caffe type (empty if the file has none) and its blobs."""

    name: str
    type: str
    blobs: tuple[BlobFacts, ...]


@dataclass(frozen=True)
class FileFacts:
    """One weight file; ``doubts`` say what to know of how its layers were understood."""

    path: str
    format: str
    net: str
    layers: tuple[LayerFacts, ...]
    doubts: tuple[str, ...] = ()


def file_facts(path: str, flattened: Mapping[str, int] | None = None) -> FileFacts:
    """Read ``path`` and describe every blob.

    Args:
        path: A weight file of any format.
        flattened: For Keras files, as in :func:`kdnet.weights.stream_weights`.

    Raises:
        WeightsError: as :func:`kdnet.weights.read_weights`.
    """
    found, stream = stream_weights(path, flattened)
    layers = tuple(map(_layer_facts, stream.layers))
    return FileFacts(path, found.name, stream.net_name, layers, stream.doubts)


def _layer_facts(layer: LayerBlobs) -> LayerFacts:
    stored = layer.stored or tuple(blob.dtype.name for blob in layer.blobs)
    facts = map(blob_facts, layer.blobs, stored)
    return LayerFacts(layer.name, layer.type, tuple(facts))


def blob_facts(blob: Array, dtype: str) -> BlobFacts:
    """Describe one blob that is stored as ``dtype``."""
    count = zeros = 0
    total = 0.0
    for part in _finite_parts(blob):
        count += part.size
        zeros += part.size - int(np.count_nonzero(part))
        total += float(part.sum())
    mean = total / count if count else None
    square = sum(float(np.square(part - mean).sum()) for part in _finite_parts(blob))
    return BlobFacts(
        blob.shape,
        dtype,
        blob.size * np.dtype(dtype).itemsize,
        mean,
        math.sqrt(square / count) if count else None,
        zeros,
        zeros / blob.size if blob.size else 0.0,
        blob.size - count,
        values_hash(blob),
    )


def values_hash(blob: Array) -> str:
    """The SHA-256 of a blob's values, little-endian and in C order."""
    plain = np.ascontiguousarray(blob, blob.dtype.newbyteorder("<"))
    return hashlib.sha256(plain.reshape(-1).view(np.uint8).data).hexdigest()


def _finite_parts(blob: Array) -> Iterator[Array]:
    """The finite values in float64, a piece at a time: a copy of a large blob would be larger."""
    flat = blob.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        finite = np.isfinite(part)
        yield part if finite.all() else part[finite]


def as_json(facts: FileFacts) -> str:
    """The facts as one JSON object; shapes are lists."""
    return json.dumps(asdict(facts), indent=1)


def as_table(facts: FileFacts) -> str:
    """The facts as a table of blobs, and a summary line."""
    head = ("layer", "type", "blob", "shape", "dtype")
    numbers = ("bytes", "mean", "std", "zeros", "bad", "sha256")
    rows = [(*head, *numbers), *_rows(facts)]
    blobs = [blob for layer in facts.layers for blob in layer.blobs]
    values = sum(math.prod(blob.shape) for blob in blobs)
    size = sum(blob.bytes for blob in blobs)
    title = f"{facts.path}: {facts.format}" + (f', net "{facts.net}"' if facts.net else "")
    summary = f"{len(facts.layers)} layers, {len(blobs)} blobs, {values} values, {size} bytes"
    notes = [f"note: {doubt}" for doubt in facts.doubts]
    right = range(len(head), len(head) + len(numbers))
    return "\n".join([title, table(rows, right=right), summary, *notes])


def _rows(facts: FileFacts) -> Iterator[tuple[str, ...]]:
    for layer in facts.layers:
        for index, blob in enumerate(layer.blobs):
            yield (
                layer.name,
                layer.type or "-",
                str(index),
                "x".join(map(str, blob.shape)) or "scalar",
                blob.dtype,
                str(blob.bytes),
                _number(blob.mean),
                _number(blob.std),
                f"{100 * blob.zero_share:.3g}%",
                str(blob.non_finite),
                blob.sha256[:12],
            )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
