"""LMDB databases of records, read at any row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from kdnet.data.packages import package
from kdnet.errors import DataError, fail

DATA_FILE = "data.mdb"

_LEVELDB_FILES = ("CURRENT", "MANIFEST-*", "*.ldb", "*.sst")

Record = tuple[bytes, bytes]
"""Key and value."""


class Database:
    """A read-only LMDB whose records are numbered in the order of their keys.

    Reading on is cheap; another row is reached by walking the keys, millions a second, without
    touching the values. No lock is taken, so other processes may read it as well.

    Raises:
        DataError: leveldb-unsupported, not-a-database, truncated-database, unreadable-database,
            empty-database.
    """

    def __init__(self, path: Path) -> None:
        check_kind(path)
        self.path = path
        environment = _SHARED.open(path)
        try:
            with _reading(path):
                self._transaction = environment.begin()
                self._cursor = self._transaction.cursor()
                self.count: int = self._transaction.stat()["entries"]
            if self.count == 0:
                fail(DataError, "empty-database", f'"{path}" holds no record')
        except DataError:
            _SHARED.close(path)
            raise
        self._row = -1

    def record(self, row: int) -> Record:
        """Key and value of row ``row``, from 0 to ``count`` - 1."""
        with _reading(self.path):
            if row < self._row or self._row < 0:
                self._cursor.first()
                self._row = 0
            while self._row < row and self._cursor.next():
                self._row += 1
            found: Record = self._cursor.item()
            return found

    def close(self) -> None:
        """Release the database; nothing of it can be read any more."""
        self._transaction.abort()
        _SHARED.close(self.path)


class _Environments:
    """The open databases of this process: LMDB forbids opening one file twice."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[str, list[Any]] = {}

    def open(self, path: Path) -> Any:
        lmdb = package("lmdb")
        key = os.path.realpath(path)
        with self._lock:
            if key not in self._open:
                with _reading(path):
                    environment = lmdb.open(str(path), readonly=True, lock=False, create=False)
                    _check_size(path, environment)
                self._open[key] = [environment, 0]
            self._open[key][1] += 1
            return self._open[key][0]

    def close(self, path: Path) -> None:
        key = os.path.realpath(path)
        with self._lock:
            self._open[key][1] -= 1
            if self._open[key][1] == 0:
                self._open.pop(key)[0].close()


_SHARED = _Environments()


def check_kind(path: Path) -> None:
    """Refuse what is no LMDB folder, and say what it is instead."""
    if (path / DATA_FILE).is_file():
        return
    if path.is_dir() and any(any(path.glob(pattern)) for pattern in _LEVELDB_FILES):
        hint = "make an LMDB from the original images: kdnet data lmdb IMAGES... OUT"
        text = f'"{path}" is a LevelDB database, which kdnet does not read yet'
        fail(DataError, "leveldb-unsupported", text, help=(hint,))
    what = f'has no file "{DATA_FILE}"' if path.is_dir() else "is not a folder"
    fail(DataError, "not-a-database", f'"{path}" is no LMDB database: it {what}')


def _check_size(path: Path, environment: Any) -> None:
    """Refuse a file that was cut short: reading past its end would kill the process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (path / DATA_FILE).stat().st_size
    if found < needed:
        environment.close()
        text = f'"{path / DATA_FILE}" is cut short: it has {found} of {needed} bytes'
        fail(DataError, "truncated-database", text)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    lmdb = package("lmdb")
    try:
        yield
    except lmdb.InvalidError:
        fail(DataError, "not-a-database", f'"{path / DATA_FILE}" is no LMDB file')
    except (lmdb.Error, OSError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        fail(DataError, "unreadable-database", f'"{path}" cannot be read: {reason}')
