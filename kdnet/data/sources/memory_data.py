"""MemoryData: arrays of an .npz file, held in memory."""

from __future__ import annotations

import numpy as np

from kdnet.data.cache import Rows
from kdnet.data.content import content_hash
from kdnet.data.datum import Shape
from kdnet.data.items import ImageSource, check_size, check_stated, check_tops, positive
from kdnet.data.located import blamed_on, existing, refuse
from kdnet.data.npz import read_arrays
from kdnet.data.order import Order
from kdnet.data.source import source
from kdnet.data.transform import transformed_shape
from kdnet.net import LayerModel
from kdnet.weights.model import Array

_PARAM = "memory_data_param"
_SOURCE = (_PARAM, "source")


@source("MemoryData")
class MemoryData(ImageSource):
    """The arrays ``data`` (N, C, H, W) and ``label`` (N) of an .npz file, over and over.

    Parameters: batch_size, channels, height, width, and kdnet's source.
    As in Caffe, channels, height and width are those of the top: after the crop.
    Differs from Caffe: there a program hands the arrays over, here a file does; N need not be a
        multiple of batch_size.
    Faults: no-data-source, missing-data-source, bad-npz, missing-array, bad-memory-data,
        item-shape.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        batch_size, stated = _check(layer)
        self._path = existing(layer, layer.message.memory_data_param.source, *_SOURCE)
        with blamed_on(layer, *_SOURCE):
            arrays = read_arrays(self._path, {"data": "data", "label": "label"})
        self._items, self._labels = _checked(layer, arrays["data"], arrays["label"])
        item_shape = self._items.shape[1:]
        check_stated(layer, stated, transformed_shape(layer, item_shape), _PARAM, "channels")
        self._order = Order(len(self._items))
        self._prepare(item_shape, batch_size)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes that the parameters state."""
        del shape
        batch_size, stated = _check(layer)
        images = (batch_size, *stated)
        check_size(layer, images)
        return images, (batch_size,)

    def take(self, rows: Rows) -> tuple[Array, ...]:
        """Images and labels of ``rows``."""
        return self._items[rows], self._labels[rows]

    def _contents(self) -> str:
        return content_hash([self._path])


def _check(layer: LayerModel) -> tuple[int, Shape]:
    check_tops(layer, 2, 2)
    param = layer.message.memory_data_param
    sizes = [
        positive(layer, getattr(param, name), _PARAM, name)
        for name in ("batch_size", "channels", "height", "width")
    ]
    return sizes[0], tuple(sizes[1:])


def _checked(layer: LayerModel, data: Array, label: Array) -> tuple[Array, Array]:
    if data.ndim != 4 or len(data) == 0 or data.dtype.kind not in "uif":
        text = f"data is {data.dtype} {data.shape}; it must be numbers (N, C, H, W)"
        refuse(layer, "bad-memory-data", text, *_SOURCE)
    if label.size != len(data) or label.dtype.kind not in "uif":
        text = f"label is {label.dtype} {label.shape}; it must be {len(data)} numbers"
        refuse(layer, "bad-memory-data", text, *_SOURCE)
    kept = data if data.dtype == np.uint8 else data.astype(np.float32)
    return kept, label.reshape(len(data))
