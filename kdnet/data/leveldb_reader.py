"""LevelDB databases of records, read at any row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdnet.data.database import Database, Record, SharedHandles
from kdnet.data.packages import package
from kdnet.errors import DataError, fail

_MARK_EVERY = 1024
_SHARED = SharedHandles()


class LevelDatabase(Database):
    """A LevelDB that is only read, as far as LevelDB allows: opening one tidies its folder.

    It keeps no count, so every key is walked once at first; some of them are remembered, from
    which another row is reached. Checksums are verified. One process at a time may have it open.

    Raises:
        DataError: unreadable-database, empty-database, missing-package.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = _SHARED.open(path, lambda: _opened(path))
        self._marks: list[bytes] = []
        self._row = 0
        try:
            with _reading(path):
                # Its plain iterator takes a damaged only block for the end.
                self._cursor = self._handle.raw_iterator(verify_checksums=True)
                self.count = self._counted()
            if self.count == 0:
                fail(DataError, "empty-database", f'"{path}" holds no record')
        except DataError:
            _SHARED.close(path)
            raise

    def record(self, row: int) -> Record:
        """Key and value of row ``row``."""
        with _reading(self.path):
            if not self._row <= row < self._row + _MARK_EVERY:
                mark = row // _MARK_EVERY
                self._cursor.seek(self._marks[mark])
                self._row = mark * _MARK_EVERY
            while self._row < row:
                self._cursor.next()
                self._row += 1
            found: Record = self._cursor.item()
            return found

    def contents(self) -> str:
        """A hash of all records; files change while their records stay the same."""
        digest = hashlib.sha256()
        for row in range(self.count):
            key, value = self.record(row)
            digest.update(b"%d:%d:" % (len(key), len(value)) + key + value)
        return digest.hexdigest()

    def close(self) -> None:
        """Release the database."""
        self._cursor.close()
        _SHARED.close(self.path)

    def _counted(self) -> int:
        count = 0
        self._cursor.seek_to_first()
        while self._cursor.valid():
            if count % _MARK_EVERY == 0:
                self._marks.append(self._cursor.key())
            self._cursor.next()
            count += 1
        if count:
            self._cursor.seek(self._marks[0])
        return count


def _opened(path: Path) -> Any:
    plyvel = package("plyvel")
    with _reading(path):
        return plyvel.DB(str(path), create_if_missing=False, paranoid_checks=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    plyvel = package("plyvel")
    try:
        yield
    except (plyvel.Error, OSError) as error:
        told = error.args[0] if error.args else error
        reason = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
        held = "already held" in reason or "temporarily unavailable" in reason
        hint = ("another process has it open; an LMDB may be read by many",) if held else ()
        text = f'the LevelDB "{path}" cannot be read: {reason}'
        fail(DataError, "unreadable-database", text, help=hint)
