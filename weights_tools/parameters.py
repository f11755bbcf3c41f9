"""A weight file as a mapping of parameter names to arrays that are read when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from kdnet.errors import UsageError, WeightsError, fail
from kdnet.weights import LayerBlobs, stream_weights, write_weights
from kdnet.weights.blobs import decode_blob, view_blob
from kdnet.weights.caffemodel_wire import damaged
from kdnet.weights.model import Array
from kdnet.weights.reading import sniff_format
from kdnet.weights.wire import WireError
from weights_tools.copying import WireNet, open_wire

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a file without its numbers: what its blobs are shaped like and stored as."""

    name: str
    type: str
    shapes: tuple[Shape, ...]
    stored: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its blobs."""
        return tuple(f"{self.name}/{index}" for index in range(len(self.shapes)))


class Weights(Mapping[str, Array]):
    """The parameters of one weight file, by name, each read when it is asked for.

    A parameter is called ``<layer>/<index>``: ``conv1/0`` is the weight of layer conv1 and
    ``conv1/1`` its bias. Files number blobs and do not say what they are; the names are those of
    Caffe's HDF5 files and of kdnet's ``.npz``. Of several layers with one name the first counts.

    Nothing is kept: two reads give two arrays, float32 or float64. In a binary NetParameter any
    parameter is found at once. Other formats are read front to back, so that reading parameters
    in the file's order passes through the file once.

    Attributes:
        path: The file.
        format: Its format, such as "caffemodel".
        net_name: The net's name, empty where the file has none.
        layers: Every layer in the file's order, those without blobs too.
    """

    path: str
    format: str
    net_name: str
    layers: tuple[LayerInfo, ...]

    def __init__(
        self, path: str | os.PathLike[str], flattened: Mapping[str, int] | None = None
    ) -> None:
        self.path = os.fspath(path)
        self._flattened = flattened
        self.format = sniff_format(self.path).name
        self.wire: WireNet | None = None
        if self.format == "caffemodel" and not flattened:
            self.wire = open_wire(self.path)
            self.net_name = self.wire.net_name
            self.layers = tuple(_wire_info(self.wire, index) for index in range(self._count))
        else:
            _, stream = stream_weights(self.path, flattened)
            self.net_name = stream.net_name
            self.layers = tuple(map(layer_info, stream.layers))
        self._places = _places(self.layers)
        self._cursor: Iterator[tuple[int, LayerBlobs]] = iter(())
        self._current: tuple[int, LayerBlobs] | None = None

    @property
    def _count(self) -> int:
        return len(self.wire.layers) if self.wire else 0

    def __getitem__(self, name: str) -> Array:
        index, blob = self._places[name]
        if self.wire is None:
            return self._passed(index).blobs[blob]
        return _decode(self.wire, index, blob)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<{self.format} {self.path!r}: {len(self)} parameters>"

    @property
    def by_layer(self) -> dict[str, LayerInfo]:
        """The layers that have blobs, by name, the first of each name."""
        found: dict[str, LayerInfo] = {}
        for layer in self.layers:
            if layer.shapes:
                found.setdefault(layer.name, layer)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: how the file was understood, and what is in no layer."""
        return stream_weights(self.path, self._flattened)[1].notes

    def stored(self, name: str) -> str:
        """The type of a parameter's numbers in the file, such as "float16"."""
        index, blob = self._places[name]
        return self.layers[index].stored[blob]

    def stream(self) -> Iterator[LayerBlobs]:
        """Every layer with its numbers, one in memory at a time."""
        return iter(stream_weights(self.path, self._flattened)[1].layers)

    def _passed(self, index: int) -> LayerBlobs:
        """Layer ``index`` of a file that is read front to back."""
        if self._current is None or self._current[0] > index:
            self._cursor, self._current = enumerate(self.stream()), None
        while self._current is None or self._current[0] < index:
            self._current = next(self._cursor)
        return self._current[1]


def open_weights(
    path: str | os.PathLike[str], *, flattened: Mapping[str, int] | None = None
) -> Weights:
    """Open a weight file of any format, known by its content.

    Args:
        path: The file.
        flattened: For Keras files, as in :func:`kdnet.weights.stream_weights`.

    Raises:
        WeightsError: as :func:`kdnet.weights.read_weights`. Of a binary NetParameter damaged
            numbers are found here as well; they are not read.
    """
    return Weights(path, flattened)


def layer_info(layer: LayerBlobs) -> LayerInfo:
    """What is known of a layer without its numbers."""
    stored = layer.stored or tuple(blob.dtype.name for blob in layer.blobs)
    return LayerInfo(layer.name, layer.type, layer.shapes, stored)


def _wire_info(net: WireNet, index: int) -> LayerInfo:
    layer = net.layers[index]
    try:
        views = [view_blob(net.data, blob.start, blob.stop) for blob in layer.blobs]
    except WireError as error:
        damaged(net.path, len(net.data), error, f'layer {index} ("{layer.name}")')
    shapes = tuple(view.shape for view in views)
    return LayerInfo(layer.name, layer.type, shapes, tuple(view.dtype.name for view in views))


def _decode(net: WireNet, index: int, blob: int) -> Array:
    layer = net.layers[index]
    place = layer.blobs[blob]
    try:
        return decode_blob(net.data, place.start, place.stop)[0]
    except WireError as error:
        damaged(net.path, len(net.data), error, f'layer {index} ("{layer.name}")')


def _places(layers: tuple[LayerInfo, ...]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    named: set[str] = set()
    for index, layer in enumerate(layers):
        if layer.shapes and layer.name not in named:
            named.add(layer.name)
            found |= {name: (index, blob) for blob, name in enumerate(layer.parameters)}
    return found


def save(
    path: str | os.PathLike[str],
    parameters: Mapping[str, Array],
    *,
    format: str | None = None,
    like: Weights | None = None,
) -> None:
    """Write parameters by name as a weight file, atomically and a layer at a time.

    Args:
        path: The file to write.
        parameters: Arrays of 16, 32 or 64 bit floats by ``<layer>/<index>``; a :class:`Weights`
            among others. Each layer comes where its first parameter is.
        format: One of ``kdnet.weights.format_names(writable=True)``; else by the path's ending.
        like: The file whose net name, order, layer types and messages to keep, with its layers
            without blobs; ``parameters`` itself, if that is an opened file.

    Raises:
        UsageError: ``bad-parameter-name``.
        WeightsError: ``missing-blob``, and as :func:`kdnet.weights.write_weights`.
    """
    if like is None and isinstance(parameters, Weights):
        like = parameters
    layers = _layers_of(parameters, _grouped(parameters), like)
    write_weights(path, layers, format=format, net_name=like.net_name if like else "")


def _layers_of(
    parameters: Mapping[str, Array], grouped: dict[str, list[int]], like: Weights | None
) -> Iterator[LayerBlobs]:
    def blobs(layer: str, indexes: Iterable[int]) -> tuple[Array, ...]:
        return tuple(np.asarray(parameters[f"{layer}/{index}"]) for index in indexes)

    for found in like.stream() if like else ():
        if not found.blobs:
            yield found
        elif found.name in grouped:
            made = blobs(found.name, grouped.pop(found.name))
            yield replace(found, blobs=made, stored=())
    for layer, indexes in grouped.items():
        yield LayerBlobs(layer, "", blobs(layer, indexes))


def _grouped(parameters: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in parameters:
        layer, _, index = name.rpartition("/")
        if not layer or not index.isdecimal() or str(int(index)) != index:
            hint = ('parameters are called "<layer>/<index>", such as "conv1/0"',)
            text = f'"{name}" is no name of a parameter'
            fail(UsageError, "bad-parameter-name", text, help=hint)
        found.setdefault(layer, []).append(int(index))
    for layer, indexes in found.items():
        indexes.sort()
        missing = next(
            index for index in count() if index >= len(indexes) or indexes[index] != index
        )
        if missing < len(indexes):
            text = f'layer "{layer}" has no blob {missing}, though it has later ones'
            fail(WeightsError, "missing-blob", text)
    return found
