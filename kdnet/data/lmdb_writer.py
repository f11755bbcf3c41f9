"""Writing a database whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from kdnet.data.database import Record
from kdnet.data.lmdb_reader import DATA_FILE
from kdnet.data.packages import package
from kdnet.errors import DataError, fail

_OWN_FILES = (
    (DATA_FILE, "lock.mdb"),
    ("CURRENT", "LOCK", "LOG", "LOG.old", "MANIFEST-*", "*.ldb", "*.sst", "*.log", "lost"),
)
_FIRST_MAP_BYTES = 64 * 2**20
_COMMIT_ROWS = 1000


Fill = Callable[[Path, Iterable[Record]], int]
"""Puts records into a folder and tells how many there were."""


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a place where no database can be written, before any work is done.

    Only a database's folder is ever replaced, and only when ``force`` says so.

    Raises:
        DataError: target-exists, target-not-database, cannot-write.
    """
    if not target.parent.is_dir():
        hint = (f'create the folder "{target.parent}" first',)
        text = f'cannot write "{target}": the folder does not exist'
        fail(DataError, "cannot-write", text, help=hint)
    if not os.path.lexists(target):
        return
    if not force:
        hint = ("--force replaces it",)
        fail(DataError, "target-exists", f'"{target}" exists already', help=hint)
    if not target.is_dir() or target.is_symlink() or not _is_database(os.listdir(target)):
        text = f'"{target}" is not a database, so it is not replaced'
        fail(DataError, "target-not-database", text)


def _is_database(names: Sequence[str]) -> bool:
    """Whether a folder holds nothing but the files of one kind of database."""
    return any(
        all(any(fnmatch(name, pattern) for pattern in own) for name in names) for own in _OWN_FILES
    )


def write_database(
    target: Path, records: Iterable[Record], *, force: bool = False, fill: Fill | None = None
) -> int:
    """Write records as a database and return their number.

    The database is made in a new folder beside ``target``, flushed, and renamed; whatever ends the
    work early leaves neither half a database nor a changed old one.

    Args:
        target: The folder to make.
        records: Keys and values; the reader sees them in the order of the keys.
        force: Replace a database that is there.
        fill: What puts the records into a new folder; by default it makes an LMDB.

    Raises:
        DataError: as :func:`check_target`; cannot-write for a full disk and the like.
    """
    lmdb = package("lmdb")
    check_target(target, force=force)
    token = secrets.token_hex(4)
    made = target.with_name(f".{target.name}-{token}.new")
    try:
        made.mkdir()
        count = (fill or fill_lmdb)(made, records)
        _put_in_place(made, target, target.with_name(f".{target.name}-{token}.old"))
    except (lmdb.Error, OSError) as error:
        reason = str(error).replace(f"{made}: ", "")
        fail(DataError, "cannot-write", f'cannot write "{target}": {reason}')
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return count


def fill_lmdb(folder: Path, records: Iterable[Record]) -> int:
    """Make an LMDB in an empty folder; how many records it has."""
    lmdb = package("lmdb")
    size_bytes = _FIRST_MAP_BYTES
    count = 0
    # Flushed once at the end: until the rename nobody relies on the file.
    with lmdb.open(str(folder), map_size=size_bytes, lock=False, sync=False) as environment:
        for rows in chunks(records):
            while not _put(environment, rows):
                size_bytes *= 2
                environment.set_mapsize(size_bytes)
            count += len(rows)
        environment.sync(force=True)
    return count


def _put(environment: Any, rows: list[Record]) -> bool:
    """Commit ``rows`` in one transaction; False when the map is too small for them."""
    lmdb = package("lmdb")
    try:
        with environment.begin(write=True) as transaction:
            for key, value in rows:
                transaction.put(key, value)
    except lmdb.MapFullError:
        return False
    return True


def chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """A thousand records at a time."""
    stream = iter(records)
    while rows := list(islice(stream, _COMMIT_ROWS)):
        yield rows


def _put_in_place(made: Path, target: Path, aside: Path) -> None:
    if not target.exists():
        made.rename(target)
        return
    target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
