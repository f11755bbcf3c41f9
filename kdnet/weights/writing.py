"""Writing a weight file of any format, layer by layer and atomically."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import kdnet.weights.formats  # noqa: F401  # registers every format
from kdnet.errors import WeightsError, did_you_mean, fail
from kdnet.weights.account import Account, Naming
from kdnet.weights.files import atomic_write
from kdnet.weights.layout_torch import LOST, to_torch
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import WeightFormat, registered_formats

_TYPES = ("float16", "float32", "float64")
_LAYOUTS = ("caffe", "torch")

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
    return tuple(sorted(one.name for one in found if one.is_written or not writable))


def write_weights(
    path: str | os.PathLike[str],
    layers: Iterable[LayerBlobs],
    *,
    format: str | None = None,
    net_name: str = "",
    layout: str = "caffe",
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
        layout: "caffe": every array as it is, to be read back bit for bit; "torch": the names and
            the statistics of a PyTorch state dict, for formats that are lists of named arrays.
        progress: Called with every layer once it is written.

    Raises:
        WeightsError: ``unknown-format``, ``unwritable-layer`` (a name or a blob that the format
            cannot hold), ``cannot-write``, and the faults of ``layers``.
    """
    name = os.fspath(path)
    chosen = _by_name(format) if format is not None else _by_suffix(name)
    _check_layout(layout, chosen)
    seen = _Seen(layers, progress)
    with atomic_write(name) as file:
        if chosen.write is not None:
            chosen.write(file, seen, net_name)
        elif chosen.write_arrays is not None and layout == "torch":
            naming = Naming(f"the .{chosen.name} file")
            chosen.write_arrays(file, _torch_arrays(seen, naming), str)
        elif chosen.write_arrays is not None:
            account = Account(net_name)
            naming = Naming(f"the .{chosen.name} file", chosen.separator)
            chosen.write_arrays(file, _arrays(seen, account, naming), account.text)
    return Written(chosen.name, seen.count, LOST if layout == "torch" else ())


class _Seen(Iterable[LayerBlobs]):
    """Layers that are counted and told of once they are written."""

    def __init__(self, layers: Iterable[LayerBlobs], progress: Progress | None) -> None:
        self._layers = layers
        self._progress = progress
        self.count = 0

    def __iter__(self) -> Iterator[LayerBlobs]:
        for layer in self._layers:
            for blob in layer.blobs:
                if blob.dtype.name not in _TYPES:
                    raise TypeError(f"a blob of {blob.dtype}: weight files hold {_TYPES}")
            yield layer
            self.count += 1
            if self._progress is not None:
                self._progress(layer)


def _arrays(
    layers: Iterable[LayerBlobs], account: Account, naming: Naming
) -> Iterator[tuple[str, Array]]:
    for layer in layers:
        names = naming.names(layer)
        account.add(layer, names)
        yield from zip(names, layer.blobs, strict=True)


def _torch_arrays(layers: Iterable[LayerBlobs], naming: Naming) -> Iterator[tuple[str, Array]]:
    for layer, names in to_torch(layers):
        yield from zip(naming.take(layer, names), layer.blobs, strict=True)


def _check_layout(layout: str, chosen: WeightFormat) -> None:
    if layout not in _LAYOUTS:
        fail(
            WeightsError,
            "unknown-layout",
            f'there is no layout "{layout}"',
            help=(*did_you_mean(layout, _LAYOUTS), f"it is one of {', '.join(_LAYOUTS)}"),
        )
    if layout != "caffe" and chosen.write_arrays is None:
        fail(
            WeightsError,
            "unknown-layout",
            f'a file of format "{chosen.name}" has Caffe\'s layout, not that of {layout}',
        )


def _by_name(name: str) -> WeightFormat:
    known = {found.name: found for found in registered_formats() if found.is_written}
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
    writable = [found for found in registered_formats() if found.is_written]
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
