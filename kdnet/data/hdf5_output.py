"""The file that an HDF5Output layer writes: rows of two blobs, complete or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdnet.data.packages import package
from kdnet.errors import DataError, Span, fail
from kdnet.weights.model import Array

DATASETS = ("data", "label")
_AXES = 4


def legacy_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of at most four axes as Caffe's old blobs have it: (N, C, H, W), 1 where none is."""
    return (*shape, *[1] * (_AXES - len(shape)))


class RowsFile:
    """Takes batches of rows, and puts them in place of a file at once.

    Until :meth:`commit` they lie in a temporary file beside it.

    Args:
        path: The file to write; a link stays a link.
        count: How many rows there will be.
        span: Where the layer names it.

    Raises:
        DataError: cannot-write, missing-package.
    """

    def __init__(self, path: str, count: int, span: Span | None = None) -> None:
        h5py = package("h5py")
        self._target = Path(os.path.realpath(path))
        self._named, self._count, self._span = path, count, span
        self._made = self._target.with_name(f".kdnet-{secrets.token_hex(6)}.tmp")
        self._row = 0
        with self._writing():
            if self._target.is_dir():
                raise OSError(0, "it is a folder")
            self._file: Any = h5py.File(self._made, "x")

    def add(self, data: Array, label: Array) -> None:
        """Append the rows of a batch.

        Shapes:
            data, label  (N, ...), at most four axes
        """
        end = self._row
        with self._writing():
            for name, values in zip(DATASETS, (data, label), strict=True):
                rows = np.reshape(values, legacy_shape(values.shape))
                if name not in self._file:
                    shape = (self._count, *rows.shape[1:])
                    self._file.create_dataset(name, shape, np.float32)
                end = self._row + len(rows)
                self._file[name][self._row : end] = rows
        self._row = end

    def commit(self) -> None:
        """Put the file in its place."""
        with self._writing():
            self._file.close()
            self._made.replace(self._target)

    def discard(self) -> None:
        """Leave what was there before."""
        self._file.close()
        self._made.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._made.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            fail(
                DataError,
                "cannot-write",
                f'cannot write "{self._named}": {reason}',
                span=self._span,
            )
