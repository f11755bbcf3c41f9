"""Writing a weight file of any format, layer by layer and atomically."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import kdnet.weights.formats  # noqa: F401  # registers every format
from kdnet.errors import WeightsError, did_you_mean, fail
from kdnet.weights.files import atomic_write
from kdnet.weights.model import LayerBlobs
from kdnet.weights.registry import WeightFormat, registered_formats

Progress = Callable[[LayerBlobs], None]


@dataclass(frozen=True)
class Written:
    """What was written: the format, how many layers, and what the format could not carry."""

    format: str
    layers: int
    lost: tuple[str, ...] = ()


def format_names(*, writable: bool = False) -> tuple[str, ...]:
    """The names of the formats that kdnet reads, or of those that it writes too, sorted."""
    found = registered_formats()
    return tuple(sorted(one.name for one in found if one.write is not None or not writable))


def write_weights(
    path: str | os.PathLike[str],
    layers: Iterable[LayerBlobs],
    *,
    format: str | None = None,
    net_name: str = "",
    progress: Progress | None = None,
) -> Written:
    """Write layers as they come; one is in memory at a time, and no file appears before the last.

    Arrays keep their type (float16, float32 or float64), shape and bits. Layer types, the other
    fields of layer messages and the net's name go along, as metadata where the format has no
    place of its own for them; :attr:`Written.lost` names what does not.

    Args:
        path: The file to write; the old one stays whole until the new one is complete.
        layers: Any iterable, such as :attr:`Stream.layers` of a file being read.
        format: One of ``format_names(writable=True)``; by the ending of ``path`` if not given.
        net_name: The net's name.
        progress: Called with every layer once it is written.

    Raises:
        WeightsError: ``unknown-format``, ``unwritable-layer`` (a name or a blob that the format
            cannot hold), ``cannot-write``, and the faults of ``layers``.
    """
    name = os.fspath(path)
    chosen = _by_name(format) if format is not None else _by_suffix(name)
    count = 0

    def watched() -> Iterator[LayerBlobs]:
        nonlocal count
        for layer in layers:
            yield layer
            count += 1
            if progress is not None:
                progress(layer)

    with atomic_write(name) as file:
        write = chosen.write
        assert write is not None  # noqa: S101  # both choosers see to it
        write(file, watched(), net_name)
    return Written(chosen.name, count)


def _by_name(name: str) -> WeightFormat:
    known = {found.name: found for found in registered_formats() if found.write is not None}
    if name not in known:
        readable = any(found.name == name for found in registered_formats())
        fail(
            WeightsError,
            "unknown-format",
            f'kdnet reads weights of format "{name}", but does not write them'
            if readable
            else f'there is no weight format "{name}"',
            help=(*did_you_mean(name, known), f"kdnet writes {', '.join(sorted(known))}"),
        )
    return known[name]


def _by_suffix(path: str) -> WeightFormat:
    writable = [found for found in registered_formats() if found.write is not None]
    chosen = next((one for one in writable if path.lower().endswith(one.suffixes)), None)
    if chosen is None:
        endings = sorted(suffix for found in writable for suffix in found.suffixes)
        fail(
            WeightsError,
            "unknown-format",
            f'the ending of "{path}" names no weight format that kdnet writes',
            help=(f"end it with one of {', '.join(endings)}, or name the format",),
        )
    return chosen
