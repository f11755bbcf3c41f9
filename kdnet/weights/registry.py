"""The weight formats that kdnet reads, each one file in :mod:`kdnet.weights.formats`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdnet.weights.model import LayerBlobs

HEAD_BYTES = 4096

Sniffer = Callable[[str, bytes], bool]
Reader = Callable[[str], "Stream"]


@dataclass(frozen=True, eq=False)
class Stream:
    """A weight file being read: its net's name, and its layers one at a time."""

    net_name: str
    layers: Iterator[LayerBlobs]


@dataclass(frozen=True)
class WeightFormat:
    """A format: its name, how it is known from a file's first bytes, and how it is read.

    ``sniff`` gets the path and the first :data:`HEAD_BYTES` bytes. A format without a signature
    of its own has no ``sniff`` and is tried when no other format and no foreign file is known.
    """

    name: str
    sniff: Sniffer | None
    read: Reader


_formats: dict[str, WeightFormat] = {}


def weight_format(name: str, *, sniff: Sniffer | None) -> Callable[[Reader], Reader]:
    """Register the decorated function as the reader of format ``name``."""

    def register(read: Reader) -> Reader:
        if name in _formats:
            raise ValueError(f'weight format "{name}" is registered twice')
        _formats[name] = WeightFormat(name, sniff, read)
        return read

    return register


def registered_formats() -> tuple[WeightFormat, ...]:
    """Every format, those with a signature first."""
    return tuple(sorted(_formats.values(), key=lambda found: found.sniff is None))
