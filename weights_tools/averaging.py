"""The mean of the weights of several files, parameter by parameter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np

from kdnet.errors import Diagnostic, Faults, UsageError, WeightsError, fail
from kdnet.weights import LayerBlobs
from kdnet.weights.model import Array
from weights_tools.parameters import Weights
from weights_tools.writing import Output, write_layers


def average(
    paths: Sequence[str | os.PathLike[str]], output: Output, shares: Sequence[float] = ()
) -> tuple[str, ...]:
    """Write the weighted mean of files that have the same layers of the same shapes.

        w = Σ_i s_i w_i / Σ_i s_i, in float64

    Layer messages are the first file's, and so are the types of the numbers (16-bit floats become
    32-bit ones). The statistics of a BatchNorm layer, sums with a factor beside them, are averaged
    like weights.

    Args:
        paths: Two files or more.
        output: The file to write.
        shares: s, one a file; equal if empty.

    Returns:
        What a user should know: how the files were understood, and what was not kept.

    Raises:
        UsageError: ``bad-shares``.
        WeightsError: ``average-mismatch``, one for each layer; the faults of reading and writing.
    """
    factors = _factors(shares, len(paths))
    files = [Weights(path) for path in paths]
    _check_same(files)
    layers, first = _averaged(files, factors), files[0]
    return write_layers(layers, output, [first.path], first.net_name, first.notes)


def _factors(shares: Sequence[float], count: int) -> list[float]:
    if not shares:
        return [1 / count] * count
    total = sum(shares)
    if len(shares) != count:
        fail(UsageError, "bad-shares", f"{len(shares)} shares for {count} files")
    if not (isfinite(total) and total > 0 and min(shares) >= 0):
        fail(UsageError, "bad-shares", "shares must be 0 or above, and one above 0")
    return [share / total for share in shares]


def _check_same(files: Sequence[Weights]) -> None:
    faults = Faults(WeightsError)
    first, *others = files
    wanted = {name: layer.shapes for name, layer in first.by_layer.items()}
    for other in others:
        found = {name: layer.shapes for name, layer in other.by_layer.items()}
        for name in dict.fromkeys([*wanted, *found]):
            if wanted.get(name) != found.get(name):
                faults.add(_mismatch(name, (first.path, other.path), (wanted, found)))
    faults.raise_if_any()


def _mismatch(
    name: str,
    paths: tuple[str, str],
    shapes: tuple[dict[str, tuple[tuple[int, ...], ...]], ...],
) -> Diagnostic:
    told = [
        f'shapes {", ".join(map(str, found[name]))} in "{path}"'
        if name in found
        else f'is not in "{path}"'
        for path, found in zip(paths, shapes, strict=True)
    ]
    return Diagnostic("average-mismatch", f'layer "{name}": {" and ".join(told)}')


def _averaged(files: Sequence[Weights], factors: Sequence[float]) -> Iterator[LayerBlobs]:
    """The first file's layers; of a repeated name all get the mean of the first."""
    for layer in files[0].stream():
        names = [f"{layer.name}/{index}" for index in range(len(layer.blobs))]
        blobs = tuple(
            _mean(blob, [file[name] for file in files[1:]], factors)
            for blob, name in zip(layer.blobs, names, strict=True)
        )
        yield replace(layer, blobs=blobs, stored=tuple(blob.dtype.name for blob in blobs))


def _mean(first: Array, others: Sequence[Array], factors: Sequence[float]) -> Array:
    total = first.astype(np.float64) * factors[0]
    for factor, other in zip(factors[1:], others, strict=True):
        total += factor * other
    with np.errstate(over="ignore"):
        return total.astype(first.dtype)
