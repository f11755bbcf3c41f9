"""The weight formats that kdnet knows, each one file in :mod:`kdnet.weights.formats`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from kdnet.weights.model import Array, LayerBlobs

HEAD_BYTES = 4096

Sniffer = Callable[[str, bytes], bool]
Reader = Callable[[str], "Stream"]
# Gets a new, empty file, the layers one at a time, and the net's name.
Writer = Callable[[BinaryIO, Iterable[LayerBlobs], str], None]
# Gets a new, empty file, named arrays one at a time, and what tells the text to keep with them
# once the last one was taken.
ArrayWriter = Callable[[BinaryIO, Iterable[tuple[str, Array]], Callable[[], str]], None]


@dataclass(frozen=True, eq=False)
class Stream:
    """A weight file being read: its net's name, and its layers one at a time.

    ``lost`` says what of the file is in no layer, ``doubts`` what a user should know of how the
    layers were understood; a sentence each. ``flattened``, where the file leaves that open, reads
    it again, told by layer how many channels the maps have that a dense layer gets flattened.
    """

    net_name: str
    layers: Iterator[LayerBlobs]
    lost: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    flattened: Callable[[Mapping[str, int]], Stream] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is worth telling whoever converts the file."""
        return self.lost + self.doubts


@dataclass(frozen=True)
class WeightFormat:
    """A format: its name, how it is known from a file's first bytes, how it is read and written.

    ``sniff`` gets the path and the first :data:`HEAD_BYTES` bytes. A format without a signature
    of its own has no ``sniff`` and is tried when no other format and no foreign file is known.
    A format that is written has ``write``, or ``write_arrays`` where a file is a list of named
    arrays; ``separator`` then stands between a layer's name and what an array is there: ``.`` as
    in conv1.weight, ``/`` as in conv1/0. ``suffixes`` are the endings of file names that ask for
    the format.
    """

    name: str
    sniff: Sniffer | None
    read: Reader
    write: Writer | None = None
    write_arrays: ArrayWriter | None = None
    separator: str = "."
    suffixes: tuple[str, ...] = ()

    @property
    def is_written(self) -> bool:
        """Whether kdnet writes it."""
        return self.write is not None or self.write_arrays is not None


_formats: dict[str, WeightFormat] = {}


def weight_format(
    name: str,
    *,
    sniff: Sniffer | None,
    write: Writer | None = None,
    write_arrays: ArrayWriter | None = None,
    separator: str = ".",
    suffixes: tuple[str, ...] = (),
) -> Callable[[Reader], Reader]:
    """Register the decorated function as the reader of format ``name``."""

    def register(read: Reader) -> Reader:
        if name in _formats:
            raise ValueError(f'weight format "{name}" is registered twice')
        found = WeightFormat(name, sniff, read, write, write_arrays, separator, suffixes)
        _formats[name] = found
        return read

    return register


def registered_formats() -> tuple[WeightFormat, ...]:
    """Every format, those with a signature first."""
    return tuple(sorted(_formats.values(), key=lambda found: found.sniff is None))
