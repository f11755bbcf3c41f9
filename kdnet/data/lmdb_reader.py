"""LMDB databases of records, read at any row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdnet.data.content import content_hash, text_hash
from kdnet.data.database import Database, Record, SharedHandles
from kdnet.data.packages import package
from kdnet.errors import DataError, fail

DATA_FILE = "data.mdb"

_SHARED = SharedHandles()


class LmdbDatabase(Database):
    """A read-only LMDB.

    A row far away is reached by walking the keys, millions a second, without touching the values.
    No lock is taken, so other processes may read it as well.

    Raises:
        DataError: not-a-database, truncated-database, unreadable-database, empty-database,
            missing-package.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        environment = _SHARED.open(path, lambda: _opened(path))
        try:
            with _reading(path):
                self._transaction = environment.begin()
                self._cursor = self._transaction.cursor()
                self.count = self._transaction.stat()["entries"]
            if self.count == 0:
                fail(DataError, "empty-database", f'"{path}" holds no record')
        except DataError:
            _SHARED.close(path)
            raise
        self._row = -1

    def record(self, row: int) -> Record:
        """Key and value of row ``row``."""
        with _reading(self.path):
            if row < self._row or self._row < 0:
                self._cursor.first()
                self._row = 0
            while self._row < row and self._cursor.next():
                self._row += 1
            found: Record = self._cursor.item()
            return found

    def contents(self) -> str:
        """A hash of the file: every change is noted in its first pages."""
        return text_hash(str(self.count), content_hash([self.path / DATA_FILE]))

    def close(self) -> None:
        """Release the database."""
        self._transaction.abort()
        _SHARED.close(self.path)


def _opened(path: Path) -> Any:
    lmdb = package("lmdb")
    with _reading(path):
        environment = lmdb.open(str(path), readonly=True, lock=False, create=False)
        _check_size(path, environment)
        return environment


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
