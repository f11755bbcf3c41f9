"""Images read from a store one by one: all of one shape, or cropped from several."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from kdnet.data import cache
from kdnet.data.cache import ItemCache, RowCache, Rows
from kdnet.data.datum import Shape
from kdnet.data.items import ImageSource, check_stated
from kdnet.data.located import refuse
from kdnet.data.source import Floats
from kdnet.data.transform import transformed_shape
from kdnet.weights.model import Array


class SeveralShapesError(Exception):
    """An image does not have the shape of the first: they do not go into one array."""


class StoredImageSource(ImageSource):
    """Images that may differ in height and width where crop_size makes them equal.

    As long as all have the shape of the first, a batch is one array. From the first one that
    differs, or where a batch of whole images is very large, each image is cropped by itself; what
    comes out of equal images is the same.

    ``source_field`` is the path of the field that names the store, ``equal_hint`` and
    ``channels_hint`` say what makes images equal.
    """

    source_field: ClassVar[tuple[str, str]]
    equal_hint: ClassVar[str]
    channels_hint: ClassVar[str]

    def _store(self, first: Array, name: str, batch_size: int) -> None:
        """Get ready for ``_order.count`` images like the first, which messages call ``name``."""
        transformed_shape(self.layer, first.shape, name)
        self._shape, self._kind = first.shape, first.dtype
        self._prepare(self._shape, batch_size, several=True)
        self._equal: RowCache | None = None
        crops = self._transformer.shape != self._shape
        if not crops or batch_size * first.nbytes <= cache.LIMIT_BYTES:
            fields = ((self._shape, self._kind), ((), np.int32))
            self._equal = RowCache(self._order.count, fields, self._read)
        self._unequal = ItemCache(self._read_one)

    def _check_stated(self, stated: Shape | None, found: Shape, *at: str) -> None:
        """Refuse a first image that is not as stated; of one that is cropped, channels count."""
        if stated is not None and self.layer.message.transform_param.crop_size:
            stated = (stated[0], *found[1:])
        check_stated(self.layer, stated, found, *at)

    @abstractmethod
    def _read(self, rows: Rows) -> tuple[Array, ...]:
        """Images and labels of ``rows``.

        Raises:
            SeveralShapesError: An image does not have the shape of the first.
        """

    @abstractmethod
    def _read_one(self, row: int) -> tuple[Array, int]:
        """The image of a row, which :meth:`_check_shape` has seen, and its label."""

    def _check_shape(self, shape: Shape, name: str) -> None:
        """Refuse an image that cannot share a batch with the first.

        Raises:
            DataError: record-shape, mean-shape, crop-too-large.
        """
        if shape == self._shape:
            return
        param = self.layer.message.transform_param
        text = f"{name} has shape {shape}; the first has {self._shape}"
        if shape[0] != self._shape[0]:
            hint = (self.channels_hint,)
            refuse(self.layer, "record-shape", text, *self.source_field, help=hint)
        if not param.crop_size:
            refuse(self.layer, "record-shape", text, *self.source_field, help=(self.equal_hint,))
        if param.HasField("mean_file"):
            text = f"{name} has shape {shape}; the mean image has {self._shape}"
            hint = ("mean_value, a number for each channel, fits images of every size",)
            refuse(self.layer, "mean-shape", text, "transform_param", "mean_file", help=hint)
        transformed_shape(self.layer, shape, name)

    def take(self, rows: Rows) -> tuple[Array, ...]:
        """Images and labels of ``rows``, as stored.

        Raises:
            SeveralShapesError: They do not have one shape.
        """
        if self._equal is None:
            raise SeveralShapesError
        return self._equal.take(rows)

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Images and labels of batch ``index``."""
        try:
            return super().batch(index)
        except SeveralShapesError:
            self._equal = None
        rows = self.records(index)
        labels = np.empty(len(rows), np.float32)
        images = self._transformer.apply_each(self._images(rows, labels), len(rows), index)
        return (images, labels)[: len(self.tops)]

    def _images(self, rows: Rows, labels: Floats) -> Iterator[Array]:
        """Each image of ``rows``; its label is put into ``labels`` on the way."""
        for place, row in enumerate(rows.tolist()):
            image, labels[place] = self._unequal.take(row)
            yield image
