"""Databases and transforms that a data source refuses: one row a fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from kdnet.schema import kdnet_pb2 as pb
from tables.sources import (
    COUNT,
    DATA,
    LMDB,
    NO_LEVELDB,
    Build,
    as_floats,
    as_png,
    database,
    datum,
    leveldb,
    nothing,
    write_lmdb,
)


@dataclass(frozen=True)
class FaultCase:
    """A layer that is refused: the code, what the position points at, and the message.

    ``at`` is the text that the position begins at, in the prototxt or in the list that it names.
    ``@`` in prototxt and message is the folder. ``later``: only reading a batch shows it.
    """

    id: str
    code: str
    prototxt: str
    build: Build
    at: str
    message: str
    help: str = ""
    later: bool = False


def _record(row: int, value: bytes) -> Build:
    """A database whose record ``row`` is ``value``."""
    good = [datum(number).SerializeToString() for number in range(COUNT)]
    return lambda folder: write_lmdb(folder / "db", [*good[:row], value, *good[row + 1 :]])


def _short(row: int) -> bytes:
    return datum(row, data=b"abc").SerializeToString()


def _level_db(folder: Path) -> None:
    pytest.importorskip("plyvel", reason=NO_LEVELDB)
    (folder / "db").mkdir()
    (folder / "db" / "CURRENT").write_text("MANIFEST-000002\n")
    (folder / "db" / "MANIFEST-000002").write_bytes(b"")


def _damaged_leveldb(folder: Path) -> None:
    leveldb(range(COUNT))(folder)
    # Opening once moves the records from the log to a table.
    pytest.importorskip("plyvel").DB(str(folder / "db")).close()
    (table,) = (folder / "db").glob("*.ldb")
    data = bytearray(table.read_bytes())
    data[50] ^= 255
    table.write_bytes(data)


def _file_db(content: bytes) -> Build:
    def build(folder: Path) -> None:
        (folder / "db").mkdir()
        (folder / "db" / "data.mdb").write_bytes(content)

    return build


def _truncated(folder: Path) -> None:
    database()(folder)
    path = folder / "db" / "data.mdb"
    path.write_bytes(path.read_bytes()[:-1])


def _mean(*shape: int, values: int | None = None) -> Build:
    def build(folder: Path) -> None:
        database()(folder)
        blob = pb.BlobProto(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
        blob.data.extend([0.0] * (int(np.prod(shape)) if values is None else values))
        (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())

    return build


def text_file(name: str, content: str) -> Build:
    return lambda folder: (folder / name).write_text(content) and None


def with_transform(text: str) -> str:
    """The Data layer with a transform_param."""
    return LMDB + "transform_param { " + text + " }"


DB = '"@/db'

DATABASE_FAULTS = [
    FaultCase(
        "batch-size",
        "not-positive",
        LMDB.replace("batch_size: 4", "batch_size: 0"),
        database(),
        "0 backend",
        'layer "d": data_param.batch_size must be positive',
    ),
    FaultCase(
        "batch-size-missing",
        "not-positive",
        LMDB.replace("batch_size: 4", ""),
        database(),
        "data_param",
        'layer "d": data_param.batch_size must be positive',
    ),
    FaultCase(
        "blob-too-large",
        "blob-too-large",
        LMDB.replace("batch_size: 4", "batch_size: 400000000"),
        database(),
        "name",
        'layer "d": a top of shape (400000000, 3, 6, 5) has more than 2147483647 values',
    ),
    FaultCase(
        "crop-too-large",
        "crop-too-large",
        with_transform("crop_size: 6"),
        database(),
        "6 }",
        'layer "d": crop_size 6 is larger than record 0 (key "00000000") of "@/db", 6 x 5',
    ),
    FaultCase(
        "data-corrupt",
        "corrupt-record",
        LMDB,
        _record(2, b"\xff\xff"),
        DB,
        'layer "d": record 2 (key "00000002") of "@/db" is not a Datum',
        later=True,
    ),
    FaultCase(
        "data-corrupt-first",
        "corrupt-record",
        LMDB,
        _record(0, b""),
        DB,
        'layer "d": record 0 (key "00000000") of "@/db" states the shape (0, 0, 0)',
    ),
    FaultCase(
        "data-corrupt-image",
        "corrupt-record",
        LMDB,
        _record(1, pb.Datum(data=b"x", encoded=True).SerializeToString()),
        DB,
        'layer "d": record 1 (key "00000001") of "@/db" cannot be decoded as an image: ',
        later=True,
    ),
    FaultCase(
        "data-empty",
        "empty-database",
        LMDB,
        lambda folder: write_lmdb(folder / "db", []),
        DB,
        'layer "d": "@/db" holds no record',
    ),
    FaultCase(
        "data-file",
        "not-a-database",
        LMDB,
        text_file("db", "x"),
        DB,
        'layer "d": "@/db" is no database: it is not a folder',
    ),
    FaultCase(
        "data-folder",
        "not-a-database",
        LMDB,
        lambda folder: (folder / "db").mkdir(),
        DB,
        'layer "d": "@/db" is no database: it has neither "data.mdb", '
        'as an LMDB has, nor "CURRENT", as a LevelDB has',
    ),
    FaultCase(
        "data-foreign",
        "not-a-database",
        LMDB,
        _file_db(b"x" * 8192),
        DB,
        'layer "d": "@/db/data.mdb" is no LMDB file',
    ),
    FaultCase(
        "data-kind",
        "record-kind",
        LMDB,
        _record(1, as_floats(1).SerializeToString()),
        DB,
        'layer "d": record 1 (key "00000001") of "@/db" has float32 data; the first has uint8',
        later=True,
    ),
    FaultCase(
        "data-leveldb",
        "unreadable-database",
        LMDB,
        _level_db,
        DB,
        'layer "d": the LevelDB "@/db" cannot be read: Corruption: ',
    ),
    FaultCase(
        "data-leveldb-bytes",
        "unreadable-database",
        LMDB,
        _damaged_leveldb,
        DB,
        'layer "d": the LevelDB "@/db" cannot be read: Corruption: block checksum mismatch',
    ),
    FaultCase(
        "data-leveldb-empty",
        "empty-database",
        LMDB,
        leveldb(()),
        DB,
        'layer "d": "@/db" holds no record',
    ),
    FaultCase(
        "data-missing",
        "missing-data-source",
        LMDB.replace("/db", "/dbs"),
        database(),
        '"@/dbs',
        'layer "d": "@/dbs" does not exist',
        help='did you mean "@/db"?',
    ),
    FaultCase(
        "data-no-source",
        "no-data-source",
        DATA + "data_param { batch_size: 4 }",
        nothing,
        "data_param",
        'layer "d": data_param.source is not given',
    ),
    FaultCase(
        "data-shape",
        "record-shape",
        LMDB,
        _record(3, datum(3, height=10, width=3).SerializeToString()),
        DB,
        'layer "d": record 3 (key "00000003") of "@/db" has shape (3, 10, 3); '
        "the first has (3, 6, 5)",
        later=True,
    ),
    FaultCase(
        "data-short",
        "corrupt-record",
        LMDB,
        _record(1, _short(1)),
        DB,
        'layer "d": record 1 (key "00000001") of "@/db" has 3 bytes where the shape '
        "(3, 6, 5) needs 90",
        later=True,
    ),
    FaultCase(
        "data-stated",
        "item-shape",
        LMDB.replace("backend", "shape { dim: 3 dim: 6 dim: 6 } backend"),
        database(),
        "shape",
        'layer "d": items have the shape (3, 6, 5), but (3, 6, 6) is stated',
    ),
    FaultCase(
        "data-stated-axes",
        "bad-item-shape",
        LMDB.replace("backend", "shape { dim: 6 dim: 6 } backend"),
        database(),
        "shape",
        'layer "d": the shape (6, 6) is not (channels, height, width) of an image',
    ),
    FaultCase(
        "data-tops",
        "top-count",
        LMDB + 'top: "more"',
        database(),
        '"data"',
        'layer "d": Data has 1 to 2 tops, not 3',
    ),
    FaultCase(
        "data-truncated",
        "truncated-database",
        LMDB,
        _truncated,
        DB,
        'layer "d": "@/db/data.mdb" is cut short: it has ',
    ),
    FaultCase(
        "data-unreadable",
        "unreadable-database",
        LMDB,
        _file_db(b""),
        DB,
        'layer "d": "@/db" cannot be read: ',
    ),
    FaultCase(
        "force-both",
        "force-color-and-gray",
        with_transform("force_color: true force_gray: true"),
        database(as_png),
        "true }",
        'layer "d": force_color and force_gray exclude each other',
    ),
    FaultCase(
        "mean-both",
        "mean-file-and-value",
        with_transform('mean_file: "@/mean.binaryproto" mean_value: 3'),
        _mean(1, 3, 6, 5),
        "3 }",
        'layer "d": mean_file and mean_value exclude each other',
    ),
    FaultCase(
        "mean-count",
        "mean-value-count",
        with_transform("mean_value: 1 mean_value: 2"),
        database(),
        "1 mean",
        'layer "d": mean_value is given 2 times for images of 3 channels',
    ),
    FaultCase(
        "mean-damaged",
        "bad-mean-file",
        with_transform('mean_file: "@/mean.binaryproto"'),
        _mean(1, 3, 6, 5, values=7),
        '"@/mean',
        'layer "d": "@/mean.binaryproto" is no mean image: ',
    ),
    FaultCase(
        "mean-missing",
        "missing-data-source",
        with_transform('mean_file: "@/mean"'),
        database(),
        '"@/mean"',
        'layer "d": "@/mean" does not exist',
    ),
    FaultCase(
        "mean-shape",
        "mean-shape",
        with_transform('mean_file: "@/mean.binaryproto"'),
        _mean(1, 3, 4, 4),
        '"@/mean',
        'layer "d": the mean image "@/mean.binaryproto" has shape '
        "(3, 4, 4); the images have (3, 6, 5)",
    ),
    FaultCase(
        "mean-two",
        "bad-mean-file",
        with_transform('mean_file: "@/mean.binaryproto"'),
        _mean(2, 3, 6, 5),
        '"@/mean',
        'layer "d": "@/mean.binaryproto" is no mean image: its shape '
        "(2, 3, 6, 5) is not that of one image",
    ),
]
