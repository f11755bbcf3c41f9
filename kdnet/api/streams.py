"""The batches of a net's data layers, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdnet.data import Source, open_source
from kdnet.errors import DataError, fail
from kdnet.layers import is_data
from kdnet.net import LayerModel, NetModel

Floats = NDArray[np.float32]
Batch = dict[str, Floats]


class ArraySource(Source):
    """The arrays that a program gave a MemoryData layer, over and over."""

    def __init__(self, layer: LayerModel, data: Floats, labels: Floats) -> None:
        super().__init__(layer, seed=0)
        self._arrays = (data, labels)
        self._size = layer.message.memory_data_param.batch_size

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of a batch of each."""
        return tuple((self._size, *array.shape[1:]) for array in self._arrays)

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Rows ``index * batch_size`` and following."""
        start = index * self._size % len(self._arrays[0])
        return tuple(array[start : start + self._size] for array in self._arrays)


class Streams:
    """The data of a net, opened when a batch is first wanted.

    Args:
        net: the net; its Input layers have no data.
        seed: for shuffling and augmentation.
        sources: the data, where it is open already.
    """

    def __init__(self, net: NetModel, seed: int, sources: Sequence[Source] | None = None) -> None:
        self._seed = seed
        self.layers = {
            index: layer
            for index, layer in enumerate(net.layers)
            if is_data(layer) and layer.type != "Input"
        }
        self._given: dict[str, ArraySource] = {}
        self._open = list(sources) if sources is not None else None
        self.index = 0

    def _sources(self) -> list[Source]:
        if self._open is None:
            self._open = [
                self._given.get(layer.name) or open_source(layer, seed=self._seed)
                for layer in self.layers.values()
            ]
            for source in self._open:
                source.attach({other.layer.name: other for other in self._open})
        return self._open

    def next(self) -> Batch:
        """The next batch of every data layer, by top."""
        found: Batch = {}
        for source in self._sources():
            found |= zip(source.tops, source.batch(self.index), strict=True)
        self.index += 1
        return found

    def give(self, layer: LayerModel, data: ArrayLike, labels: ArrayLike) -> None:
        """Let a MemoryData layer read arrays, from their start.

        Raises:
            DataError: memory-arrays, when they do not fit the layer.
        """
        param = layer.message.memory_data_param
        images, numbers = np.array(data, np.float32), np.array(labels, np.float32)
        item = (param.channels, param.height, param.width)
        rows = images.shape[0] if images.ndim else 0
        fits = images.shape[1:] == item and numbers.size == rows
        if not fits or rows == 0 or rows % param.batch_size:
            text = (
                f'layer "{layer.name}" takes arrays (N, {", ".join(map(str, item))}) and (N), '
                f"N a multiple of {param.batch_size}; not {images.shape} and {numbers.shape}"
            )
            fail(DataError, "memory-arrays", text, span=layer.position)
        self.close()
        self._given[layer.name] = ArraySource(layer, images, numbers.reshape(rows))
        self.index = 0

    def close(self) -> None:
        """Release the data; the next batch opens it anew."""
        for source in self._open or ():
            source.close()
        self._open = None
