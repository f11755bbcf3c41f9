"""Opens a database whatever its kind, which its folder tells."""

from __future__ import annotations

from pathlib import Path

from kdnet.data.database import Database
from kdnet.data.leveldb_reader import LevelDatabase
from kdnet.data.lmdb_reader import DATA_FILE, LmdbDatabase
from kdnet.errors import DataError, fail

LMDB, LEVELDB = "LMDB", "LEVELDB"

_LEVELDB_FILES = ("CURRENT", "MANIFEST-*", "*.ldb", "*.sst")


def kind_of(path: Path) -> str:
    """``LMDB`` or ``LEVELDB``, as Caffe's ``backend`` calls them.

    Raises:
        DataError: not-a-database.
    """
    if (path / DATA_FILE).is_file():
        return LMDB
    if not any(any(path.glob(pattern)) for pattern in _LEVELDB_FILES):
        lacks = f'has neither "{DATA_FILE}", as an LMDB has, nor "CURRENT", as a LevelDB has'
        what = lacks if path.is_dir() else "is not a folder"
        fail(DataError, "not-a-database", f'"{path}" is no database: it {what}')
    return LEVELDB


def open_database(path: Path) -> Database:
    """The records of a folder.

    Raises:
        DataError: not-a-database, and what its kind says.
    """
    return LmdbDatabase(path) if kind_of(path) == LMDB else LevelDatabase(path)
