"""The same layers in another format, or with numbers of another type."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from kdnet.errors import WeightsError, fail
from kdnet.weights import LayerBlobs, stream_weights
from kdnet.weights.model import Array
from weights_tools.writing import Output, write_layers

_TYPES: dict[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}
CASTS = tuple(_TYPES)


@dataclass
class Account:
    """What a conversion or a cast did to the numbers.

    ``widened`` counts blobs of 16-bit floats that became 32-bit ones, ``cast`` blobs of another
    type; ``overflows`` counts values that became infinite, ``largest_error`` is the largest
    |new - old| of the others. ``notes`` is what a user should know of it.
    """

    layers: int = 0
    blobs: int = 0
    widened: int = 0
    cast: int = 0
    overflows: int = 0
    largest_error: float = 0.0
    notes: tuple[str, ...] = ()


def convert(
    path: str | os.PathLike[str], output: Output, *, flattened: Mapping[str, int] | None = None
) -> Account:
    """Write a weight file in another format, layer by layer; every value stays what it was.

    16-bit floats become 32-bit ones, as everything that reads them makes them.

    Args:
        path: A weight file of any format.
        output: The file to write.
        flattened: For Keras files, as in :func:`kdnet.weights.stream_weights`.

    Raises:
        WeightsError: ``unknown-format`` where neither ``output.format`` nor the path's ending
            names one; the faults of reading and writing.
    """
    account = Account()
    source = os.fspath(path)
    _, stream = stream_weights(source, flattened)
    layers = _counted(stream.layers, account)
    strict = replace(output, default=None)
    account.notes = write_layers(layers, strict, [source], stream.net_name, stream.notes)
    return account


def _counted(layers: Iterator[LayerBlobs], account: Account) -> Iterator[LayerBlobs]:
    for layer in layers:
        account.layers += 1
        account.blobs += len(layer.blobs)
        account.widened += layer.stored.count("float16")
        yield layer


def cast(
    path: str | os.PathLike[str], output: Output, kind: str, *, allow_overflow: bool = False
) -> Account:
    """Write a weight file with all numbers as 16-bit (``fp16``) or 32-bit (``fp32``) floats.

    Raises:
        WeightsError: ``cast-overflow``, unless allowed, for a finite value beyond the new type's
            largest (65504 for fp16); the faults of reading and writing.
    """
    account = Account()
    source = os.fspath(path)
    _, stream = stream_weights(source)

    def layers() -> Iterator[LayerBlobs]:
        for layer in stream.layers:
            account.layers += 1
            blobs = tuple(_cast(blob, kind, account) for blob in layer.blobs)
            if account.overflows and not allow_overflow:
                _refuse_overflow(source, f'layer "{layer.name}"', kind, account.overflows)
            yield replace(layer, blobs=blobs, stored=tuple(blob.dtype.name for blob in blobs))

    account.notes = write_layers(layers(), output, [source], stream.net_name, stream.notes)
    return account


def _cast(blob: Array, kind: str, account: Account) -> Array:
    account.blobs += 1
    with np.errstate(over="ignore", invalid="ignore"):
        made = blob.astype(_TYPES[kind], copy=False)
    account.cast += made.dtype != blob.dtype
    finite = np.isfinite(made)
    account.overflows += int(np.isfinite(blob).sum() - finite.sum())
    if made.dtype.itemsize < blob.dtype.itemsize and finite.any():
        gap = np.abs(made[finite].astype(blob.dtype) - blob[finite])
        account.largest_error = max(account.largest_error, float(gap.max()))
    return made


def _refuse_overflow(path: str, where: str, kind: str, count: int) -> NoReturn:
    limit = float(np.finfo(_TYPES[kind]).max)
    fail(
        WeightsError,
        "cast-overflow",
        f'"{path}": {where} has values that {kind} cannot hold: {count}',
        help=(f"beyond {limit:g} they become infinite; --allow-overflow lets them",),
    )
