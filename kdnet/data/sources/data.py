"""Data: images and labels of a database."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from kdnet.data.cache import Rows
from kdnet.data.content import text_hash
from kdnet.data.datum import Item, RawReader, Shape, read_datum
from kdnet.data.items import (
    check_tops,
    image_shapes,
    positive,
    stated_shape,
)
from kdnet.data.located import blamed_on, existing, remark
from kdnet.data.mean import name_record
from kdnet.data.opening import LEVELDB, LMDB, kind_of, open_database
from kdnet.data.order import Order, below, draw_key, permutation
from kdnet.data.source import source
from kdnet.data.stored_images import SeveralShapesError, StoredImageSource
from kdnet.data.transform import forced_channels
from kdnet.errors import DataError, Diagnostic, fail
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.model import Array

_SOURCE = ("data_param", "source")


@source("Data")
class Data(StoredImageSource):
    """Records of an LMDB or a LevelDB in the order of their keys, over and over.

    Parameters: source, batch_size, shape; rand_skip r starts at a random record below r; shuffle,
        which forks have, orders each pass anew. The backend is known from the folder, whatever
        ``backend`` says. Batch k has the records k·batch_size to (k+1)·batch_size - 1, modulo
        their number. With crop_size, images may have several sizes: each is cropped from its own.
    Differs from Caffe: without crop_size, items of several shapes are refused even where a batch
        has one; bytes and float_data do not mix.
    Faults: missing-data-source, not-a-database, truncated-database, unreadable-database,
        missing-package, empty-database, corrupt-record, record-shape, record-kind, item-shape,
        crop-too-large, mean-shape.
    """

    source_field = _SOURCE
    equal_hint = "give crop_size, or resize the images when making the database"
    channels_hint = "force_color and force_gray give encoded images the same channels"

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        super().__init__(layer, seed=seed)
        param = layer.message.data_param
        batch_size = _check(layer)
        stated = _stated(layer, shape)
        self._channels = forced_channels(layer)
        path = existing(layer, param.source, *_SOURCE)
        with blamed_on(layer, *_SOURCE):
            self._database = open_database(path)
        try:
            self._open(
                stated, batch_size, below(param.rand_skip, seed, draw_key(layer), "rand_skip")
            )
        except DataError:
            self._database.close()
            raise
        self.notes = _backend_notes(layer, path)

    def _open(self, stated: Shape | None, batch_size: int, skip: int) -> None:
        with blamed_on(self.layer, *_SOURCE):
            first = self._parse(0, *self._database.record(0))
        shape = first.pixels.shape
        self._check_stated(stated, shape, "data_param", "shape")
        self._raw = RawReader(shape) if first.pixels.dtype == np.uint8 else None
        shuffle = self._shuffled if self.layer.message.data_param.shuffle else None
        self._order = Order(self._database.count, skip=skip, shuffle=shuffle)
        self._store(first.pixels, self._name(0, self._database.record(0)[0]), batch_size)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes when an item's shape is stated."""
        batch_size = _check(layer)
        stated = _stated(layer, shape)
        return None if stated is None else image_shapes(layer, stated, batch_size)

    def _contents(self) -> str:
        return text_hash(self._database.contents(), str(self._channels))

    def close(self) -> None:
        """Release the database."""
        self._database.close()

    def _shuffled(self, number: int) -> Rows:
        key = (draw_key(self.layer), "shuffle", number)
        return permutation(self._database.count, self.seed, *key)

    def _read(self, rows: Rows) -> tuple[Array, ...]:
        items = np.empty((len(rows), *self._shape), self._kind)
        labels = np.empty(len(rows), np.int32)
        flat = items.reshape(len(rows), prod(self._shape))
        with blamed_on(self.layer, *_SOURCE):
            for place, row in enumerate(rows.tolist()):
                key, record = self._database.record(row)
                label = self._raw.read(record, flat[place]) if self._raw else None
                if label is None:
                    item = self._parse(row, key, record)
                    if item.pixels.shape != self._shape:
                        raise SeveralShapesError
                    items[place], label = item.pixels, item.label
                labels[place] = label
        return items, labels

    def _read_one(self, row: int) -> tuple[Array, int]:
        with blamed_on(self.layer, *_SOURCE):
            key, record = self._database.record(row)
            item = self._parse(row, key, record)
        self._check_shape(item.pixels.shape, self._name(row, key))
        return item.pixels, item.label

    def _parse(self, row: int, key: bytes, record: bytes) -> Item:
        """The record's item; all have the numbers of the first."""
        try:
            item = read_datum(record, self._channels)
        except ValueError as error:
            fail(DataError, "corrupt-record", f"{self._name(row, key)} {error}")
        kind = item.pixels.dtype
        if row and kind != self._kind:
            text = f"{self._name(row, key)} has {kind} data; the first has {self._kind}"
            fail(DataError, "record-kind", text)
        return item

    def _name(self, row: int, key: bytes) -> str:
        return name_record(self._database.path, row, key)


def _backend_notes(layer: LayerModel, path: Path) -> tuple[Diagnostic, ...]:
    """A warning where the folder is not what ``backend``, or its default, says."""
    param = layer.message.data_param
    kind, stated = kind_of(path), pb.DataParameter.DB.Name(param.backend)
    if kind == stated:
        return ()
    known = {LMDB: "an LMDB", LEVELDB: "a LevelDB"}
    given = f"says {stated}" if param.HasField("backend") else f"is not given ({stated})"
    text = f'backend {given}, but "{path}" is {known[kind]} and is read as one'
    at = "backend" if param.HasField("backend") else "source"
    return (remark(layer, "backend-mismatch", text, "data_param", at),)


def _check(layer: LayerModel) -> int:
    check_tops(layer, 1, 2)
    return positive(layer, layer.message.data_param.batch_size, "data_param", "batch_size")


def _stated(layer: LayerModel, shape: Shape | None) -> Shape | None:
    param = layer.message.data_param
    field = param.shape if param.HasField("shape") else None
    return stated_shape(layer, field, shape, "data_param", "shape")
