"""A teacher's answers in a file, one row a record: HDF5, .npz or LMDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdnet.data.cache import RowCache, Rows
from kdnet.data.content import content_hash
from kdnet.data.datum import read_datum
from kdnet.data.hdf5_files import Hdf5Files, listed
from kdnet.data.mean import name_record
from kdnet.data.npz import array_names, read_arrays
from kdnet.data.opening import open_database
from kdnet.data.packages import package
from kdnet.errors import DataError, fail
from kdnet.weights.model import Array

CLASSES, REST = "_classes", "_rest"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"


class Answers(ABC):
    """Arrays with one row a record.

    Attributes:
        count: How many rows there are.
        names: The arrays.
    """

    count: int
    names: tuple[str, ...]

    @abstractmethod
    def read(self, rows: Rows) -> tuple[Array, ...]:
        """The rows of each array, as float32 or as stored."""

    @abstractmethod
    def content(self) -> str:
        """A hash of the files."""

    def close(self) -> None:  # noqa: B027  # arrays in memory hold no file open
        """Release the files."""


def open_answers(path: Path, dataset: str, *, top_k: bool) -> Answers:
    """The answers of a file, whichever kind it is.

    The arrays are ``dataset`` and, with ``top_k``, ``<dataset>_classes`` and, where it is there,
    ``<dataset>_rest``.

    Raises:
        DataError: answers-without-classes, and what the kind's reader says.
    """
    if path.is_dir():
        if top_k:
            text = f'"{path}" is an LMDB, which holds the scores of all classes: top_k is for '
            fail(DataError, "answers-without-classes", f"{text}HDF5 and .npz files")
        return DatabaseAnswers(path)
    with path.open("rb") as file:
        head = file.read(8)
    wanted = (dataset, dataset + CLASSES) if top_k else (dataset,)
    if head.startswith(_ZIP):
        rest = (dataset + REST,) if top_k and dataset + REST in array_names(path) else ()
        return ArchiveAnswers(path, (*wanted, *rest))
    files = [path] if head == _HDF5 else listed(path)
    rest = (dataset + REST,) if top_k and _in_hdf5(files[0], dataset + REST) else ()
    return Hdf5Answers(files, (*wanted, *rest))


def _in_hdf5(path: Path, name: str) -> bool:
    try:
        with package("h5py").File(path, "r") as file:
            return name in file
    except OSError:
        return False


class ArchiveAnswers(Answers):
    """Arrays of an .npz archive, in memory."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self.names = path, tuple(names)
        arrays = read_arrays(path, {name: name for name in names})
        self._arrays = tuple(arrays.values())
        for name, array in arrays.items():
            if array.ndim < 1 or array.dtype.kind not in "uif" or not len(array):
                text = f'array "{name}" of "{path}" is {array.dtype} {array.shape}'
                fail(DataError, "bad-dataset", f"{text}; it must be numbers with rows")
        counts = {len(array) for array in self._arrays}
        if len(counts) > 1:
            text = f'the arrays of "{path}" have different numbers of rows: {sorted(counts)}'
            fail(DataError, "dataset-rows", text)
        self.count = counts.pop()

    def read(self, rows: Rows) -> tuple[Array, ...]:
        """The rows of each array."""
        return tuple(array[rows] for array in self._arrays)

    def content(self) -> str:
        """A hash of the archive."""
        return content_hash([self._path])


class Hdf5Answers(Answers):
    """Datasets of HDF5 files."""

    def __init__(self, files: Sequence[Path], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._files = Hdf5Files(files, names)
        self.count = self._files.count
        fields = [(shape, np.float32) for shape in self._files.shapes]
        self._cache = RowCache(self.count, fields, self._files.read)

    def read(self, rows: Rows) -> tuple[Array, ...]:
        """The rows of each dataset."""
        return self._cache.take(rows)

    def content(self) -> str:
        """A hash of the files."""
        return content_hash(self._files.paths)

    def close(self) -> None:
        """Close the file that is open."""
        self._files.close()


class DatabaseAnswers(Answers):
    """Records of a database: the numbers of a Datum, whatever its three extents."""

    names = ("float_data",)

    def __init__(self, path: Path) -> None:
        self._database = open_database(path)
        self.count = self._database.count
        self._width = 0
        try:
            self._width = len(self._row(0))
        except DataError:
            self.close()
            raise
        self._cache = RowCache(self.count, [((self._width,), np.float32)], self._read)

    def read(self, rows: Rows) -> tuple[Array, ...]:
        """The numbers of each record."""
        return self._cache.take(rows)

    def content(self) -> str:
        """A hash of the database."""
        return self._database.contents()

    def close(self) -> None:
        """Release the database."""
        self._database.close()

    def _read(self, rows: Rows) -> tuple[Array, ...]:
        return (np.stack([self._row(row) for row in rows.tolist()]),)

    def _row(self, row: int) -> Array:
        key, record = self._database.record(row)
        try:
            found = read_datum(record).pixels.astype(np.float32).reshape(-1)
            if len(found) != (self._width or len(found)):
                raise ValueError(f"has {len(found)} numbers; the first has {self._width}")
        except ValueError as error:
            place = name_record(self._database.path, row, key)
            fail(DataError, "corrupt-record", f"{place} {error}")
        return found
