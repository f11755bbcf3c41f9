"""Rows of several HDF5 files as one table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kdnet.data.cache import Rows
from kdnet.data.datum import Shape
from kdnet.data.packages import package
from kdnet.data.paths import find, suggest
from kdnet.errors import DataError, Span, did_you_mean, fail
from kdnet.weights.model import Array

_MAX_ROWS = 2**31 - 1
_MAX_LIST_BYTES = 2**26


class Hdf5Files:
    """The datasets ``names`` of several files, joined along axis 0.

    Only headers are read at first, and one file is open at a time.

    Args:
        paths: The files, as :func:`listed` finds them.
        names: The datasets to read.

    Attributes:
        paths: The files.
        counts: The rows of each file.
        shapes: The shape of one row of each dataset.

    Raises:
        DataError: bad-hdf5, missing-dataset, bad-dataset, dataset-rows, dataset-shape.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._open: tuple[Path, Any] | None = None
        self.paths = tuple(paths)
        counts = []
        self.shapes: tuple[Shape, ...] = ()
        try:
            for path in self.paths:
                count, shapes = self._header(path)
                self.shapes = self.shapes or shapes
                if shapes != self.shapes:
                    text = f'rows of "{path}" have the shapes {shapes}, not {self.shapes}'
                    fail(DataError, "dataset-shape", text)
                counts.append(count)
        finally:
            self.close()
        self.counts = tuple(counts)
        self.starts: tuple[int, ...] = (0, *np.cumsum(counts).tolist())

    @property
    def count(self) -> int:
        """Rows in all."""
        return int(self.starts[-1])

    def read(self, rows: Rows) -> tuple[Array, ...]:
        """The rows ``rows`` of each dataset, as float32."""
        out = tuple(np.empty((len(rows), *shape), np.float32) for shape in self.shapes)
        files = np.array([bisect_right(self.starts, row) - 1 for row in rows.tolist()])
        for number in np.unique(files).tolist():
            here = np.flatnonzero(files == number)
            wanted, back = np.unique(rows[here] - self.starts[number], return_inverse=True)
            for values, name in zip(out, self._names, strict=True):
                values[here] = self._rows(self.paths[number], name, wanted)[back]
        return out

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _rows(self, path: Path, name: str, rows: Rows) -> Array:
        first, last = int(rows[0]), int(rows[-1])
        # A slice is one read; h5py picks single rows far more slowly.
        chosen = slice(first, last + 1) if last - first == len(rows) - 1 else rows
        try:
            return np.asarray(self._file(path)[name][chosen])
        except (OSError, KeyError, ValueError) as error:
            _bad(path, str(error))

    def _file(self, path: Path) -> Any:
        h5py = package("h5py")
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = (path, h5py.File(path, "r"))
        return self._open[1]

    def _header(self, path: Path) -> tuple[int, tuple[Shape, ...]]:
        """The rows of a file, and the shape of a row of each dataset."""
        try:
            file = self._file(path)
            known = sorted(file)
            found = [file.get(name) for name in self._names]
        except (OSError, KeyError, ValueError) as error:
            _bad(path, str(error))
        shapes: list[Shape] = []
        for name, dataset in zip(self._names, found, strict=True):
            if dataset is None:
                text = f'"{path}" has no dataset "{name}"; it has {", ".join(known) or "none"}'
                fail(DataError, "missing-dataset", text, help=did_you_mean(name, known))
            shapes.append(_shape_of(path, name, dataset))
        rows = {shape[0] for shape in shapes}
        if len(rows) != 1:
            text = f'the datasets of "{path}" have different numbers of rows: {sorted(rows)}'
            fail(DataError, "dataset-rows", text)
        return rows.pop(), tuple(shape[1:] for shape in shapes)


def listed(list_path: Path) -> list[Path]:
    """The files that a text file names, separated by white space.

    They resolve against the working directory, then against the list's folder.

    Raises:
        DataError: bad-hdf5-list, missing-hdf5.
    """
    try:
        if list_path.stat().st_size > _MAX_LIST_BYTES:
            fail(DataError, "bad-hdf5-list", f'"{list_path}" is no list of files: it is too large')
        text = list_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = ("the source of HDF5Data is a text file that lists the .h5 files",)
        fault = f'"{list_path}" cannot be read as a list of files: {error}'
        fail(DataError, "bad-hdf5-list", fault, help=hint)
    paths: list[Path] = []
    for number, line in enumerate(text.splitlines(), 1):
        for name in line.split():
            found = find(name, str(list_path))
            if found is None:
                span = Span(str(list_path), number, line.index(name) + 1, len(name), line)
                near = suggest(name, str(list_path))
                fail(DataError, "missing-hdf5", f'"{name}" does not exist', span=span, help=near)
            paths.append(found)
    if not paths:
        fail(DataError, "bad-hdf5-list", f'"{list_path}" lists no file')
    return paths


def _shape_of(path: Path, name: str, dataset: Any) -> Shape:
    shape = getattr(dataset, "shape", None)
    kind = getattr(dataset, "dtype", np.dtype(object)).kind
    if not shape or kind not in "uif" or not 0 < shape[0] <= _MAX_ROWS:
        what = f"{dataset.dtype} {shape}" if shape is not None else "a group"
        text = f'dataset "{name}" of "{path}" is {what}; it must be numbers with rows'
        fail(DataError, "bad-dataset", text)
    return tuple(int(size) for size in shape)


def _bad(path: Path, reason: str) -> NoReturn:
    fail(DataError, "bad-hdf5", f'"{path}" cannot be read as HDF5: {reason}')
