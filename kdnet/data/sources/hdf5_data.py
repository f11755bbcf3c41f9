"""HDF5Data: rows of HDF5 files, any number of tops."""

from __future__ import annotations

import numpy as np

from kdnet.data.cache import RowCache, Rows
from kdnet.data.content import content_hash, text_hash
from kdnet.data.datum import Shape
from kdnet.data.hdf5_files import Hdf5Files, listed
from kdnet.data.items import check_size, check_tops, positive
from kdnet.data.located import blamed_on, existing, refuse
from kdnet.data.order import Order, permutation
from kdnet.data.source import Floats, Source, source
from kdnet.net import LayerModel

_PARAM = "hdf5_data_param"
_SOURCE = (_PARAM, "source")
_MOST_TOPS = 2**31 - 1


@source("HDF5Data")
class HDF5Data(Source):
    """The datasets named as the tops, row by row through the files of a list, over and over.

    Parameters: source (a text file that lists the .h5 files), batch_size, shape (one a top);
        shuffle orders the files, and the rows of each, anew at every pass.
    Differs from Caffe: every file must have rows of the same shapes; transform_param is refused
        in both.
    Faults: missing-data-source, bad-hdf5-list, missing-hdf5, bad-hdf5, missing-dataset,
        bad-dataset, dataset-rows, dataset-shape, item-shape, transform-not-allowed.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        super().__init__(layer, seed=seed)
        self._batch_size = _check(layer)
        stated = _stated(layer, shape)
        path = existing(layer, layer.message.hdf5_data_param.source, *_SOURCE)
        with blamed_on(layer, *_SOURCE):
            self._files = Hdf5Files(listed(path), layer.tops)
        if stated not in (None, self._files.shapes):
            text = f"rows have the shapes {self._files.shapes}, but {stated} are stated"
            refuse(layer, "item-shape", text, _PARAM, "shape", 0)
        self._shapes = _batched(layer, self._files.shapes, self._batch_size)
        shuffle = self._shuffled if layer.message.hdf5_data_param.shuffle else None
        self._order = Order(self._files.count, shuffle=shuffle)
        fields = [(found, np.float32) for found in self._files.shapes]
        self._cache = RowCache(self._files.count, fields, self._read)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes when those of a row are stated."""
        batch_size = _check(layer)
        stated = _stated(layer, shape)
        return None if stated is None else _batched(layer, stated, batch_size)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Batch axis and the shape of a row, a top."""
        return self._shapes

    def batch(self, index: int) -> tuple[Floats, ...]:
        """The rows of batch ``index``, a top."""
        return self._cache.take(self.records(index))

    @property
    def record_count(self) -> int:
        """Every row is a record."""
        return self._files.count

    @property
    def varies(self) -> str:
        """Rows are handed out as they are stored."""
        return ""

    def records(self, index: int) -> Rows:
        """The rows of batch ``index``, counted through the files of the list."""
        return self._order.rows(index, self._batch_size)

    def identity(self) -> dict[str, str]:
        """The names of the datasets and the contents of the files."""
        return {
            "type": self.layer.type,
            "contents": text_hash(content_hash(self._files.paths), *self.layer.tops),
        }

    def close(self) -> None:
        """Close the file that is open."""
        self._files.close()

    def _read(self, rows: Rows) -> tuple[Floats, ...]:
        with blamed_on(self.layer, *_SOURCE):
            return self._files.read(rows)

    def _shuffled(self, number: int) -> Rows:
        """The files in a random order, and the rows of each in a random order of their own."""
        key = (self.seed, self.layer.name, "shuffle", number)
        starts, counts = self._files.starts, self._files.counts
        return np.concatenate(
            [
                starts[file] + permutation(counts[file], *key, file)
                for file in permutation(len(counts), *key).tolist()
            ]
        )


def _check(layer: LayerModel) -> int:
    check_tops(layer, 1, _MOST_TOPS)
    if layer.message.HasField("transform_param"):
        text = "HDF5Data does not transform its data"
        refuse(layer, "transform-not-allowed", text, "transform_param")
    return positive(layer, layer.message.hdf5_data_param.batch_size, _PARAM, "batch_size")


def _stated(layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
    """The shape of a row of each top; the command line has one, which serves a single top."""
    given = [tuple(found.dim) for found in layer.message.hdf5_data_param.shape]
    if not given:
        return (shape,) if shape is not None and len(layer.tops) == 1 else None
    if len(given) != len(layer.tops) or any(min(found, default=1) < 1 for found in given):
        text = f"shape is {given} for {len(layer.tops)} tops"
        hint = ("give the shape of a row once for each top",)
        refuse(layer, "bad-item-shape", text, _PARAM, "shape", 0, help=hint)
    return tuple(given)


def _batched(layer: LayerModel, rows: tuple[Shape, ...], batch_size: int) -> tuple[Shape, ...]:
    shapes = tuple((batch_size, *row) for row in rows)
    for found in shapes:
        check_size(layer, found)
    return shapes
