"""Mean images: the BlobProto file that a transform subtracts, and the tool that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.data.datum import Shape, read_datum
from kdnet.data.opening import open_database
from kdnet.data.steps import Start, ignore
from kdnet.errors import DataError, fail
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.blobs import decode_blob
from kdnet.weights.files import atomic_write
from kdnet.weights.model import Array
from kdnet.weights.wire import WireError

Floats = NDArray[np.float32]

_MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of ``count`` images: ``image`` is (C, H, W), ``channels`` its mean a channel."""

    image: Floats
    channels: tuple[float, ...]
    count: int


def read_mean(path: Path) -> Floats:
    """The mean image, (C, H, W), of a binary BlobProto file.

    Raises:
        DataError: bad-mean-file: unreadable, no BlobProto, or not one image.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _MAX_BYTES:
            _bad(path, f"it has {size_bytes} bytes")
        data = path.read_bytes()
        values, _ = decode_blob(data, 0, len(data))
    except OSError as error:
        _bad(path, error.strerror or str(error))
    except WireError as error:
        _bad(path, str(error))
    shape = values.shape
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3:
        _bad(path, f"its shape {shape} is not that of one image")
    return values.reshape(shape).astype(np.float32)


def mean_of(path: Path, start: Start = ignore) -> Mean:
    """The mean of all images of a database, summed in float64.

    Args:
        path: The database.
        start: Hears of the records.

    Raises:
        DataError: as :func:`open_database`; corrupt-record, record-shape.
    """
    database = open_database(path)
    try:
        advance = start(database.count)
        total = np.zeros(0)
        for row in range(database.count):
            key, record = database.record(row)
            pixels = _pixels(path, row, key, record)
            if row == 0:
                total = np.zeros(pixels.shape)
            _check_same_shape(path, row, key, pixels.shape, total.shape)
            total += pixels
            advance(1)
        mean = total / database.count
        channels = tuple(float(value) for value in mean.mean(axis=(1, 2)))
        return Mean(mean.astype(np.float32), channels, database.count)
    finally:
        database.close()


def write_mean(path: Path, image: Floats) -> None:
    """Write a mean image as compute_image_mean does: a BlobProto of shape (1, C, H, W)."""
    channels, height, width = image.shape
    blob = pb.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(image.ravel().tolist())
    with atomic_write(path) as file:
        file.write(blob.SerializeToString(deterministic=True))


def name_record(path: Path, row: int, key: bytes) -> str:
    """How a message names a record."""
    return f'record {row} (key "{key.decode("utf-8", "backslashreplace")}") of "{path}"'


def _check_same_shape(path: Path, row: int, key: bytes, shape: Shape, first: Shape) -> None:
    if shape != first:
        text = f"{name_record(path, row, key)} has shape {shape}; the first has {first}"
        hint = "images of several sizes have no mean image: resize them when making the database"
        fail(DataError, "record-shape", text, help=(hint,))


def _pixels(path: Path, row: int, key: bytes, record: bytes) -> Array:
    try:
        return read_datum(record).pixels
    except ValueError as error:
        fail(DataError, "corrupt-record", f"{name_record(path, row, key)} {error}")


def _bad(path: Path, reason: str) -> NoReturn:
    fail(DataError, "bad-mean-file", f'"{path}" is no mean image: {reason}')
