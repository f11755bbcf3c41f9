"""Writing a LevelDB, as Caffe does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdnet.data.database import Record
from kdnet.data.lmdb_writer import chunks
from kdnet.data.packages import package

# Caffe's own: large blocks, since records are large.
_BLOCK_BYTES = 2**16
_BUFFER_BYTES = 2**26


def fill_leveldb(folder: Path, records: Iterable[Record]) -> int:
    """Make a LevelDB in an empty folder; how many records it has.

    Raises:
        DataError: missing-package.
        OSError: It cannot be written.
    """
    plyvel = package("plyvel")
    count = 0
    try:
        with plyvel.DB(
            str(folder),
            create_if_missing=True,
            block_size=_BLOCK_BYTES,
            write_buffer_size=_BUFFER_BYTES,
        ) as database:
            for rows in chunks(records):
                with database.write_batch() as batch:
                    for key, value in rows:
                        batch.put(key, value)
                count += len(rows)
    except plyvel.Error as error:
        told = error.args[0] if error.args else error
        reason = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
        raise OSError(reason) from None
    return count
