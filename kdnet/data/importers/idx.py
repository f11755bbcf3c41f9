"""The idx format of MNIST and Fashion-MNIST, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kdnet.data.datum import Item
from kdnet.data.importers.images import Image, Images, Options, bad_collection

IMAGES_MAGIC = b"\x00\x00\x08\x03"
LABELS_MAGIC = b"\x00\x00\x08\x01"
GZIP_MAGIC = b"\x1f\x8b"

_MAX_ITEM_BYTES = 2**26
_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}


def is_packed(path: Path) -> bool:
    """Whether a file is gzipped."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def open_plain(path: Path) -> BinaryIO:
    """A file opened for reading, unpacked on the way where it is gzipped."""
    # gzip.open closes the file below it, which a GzipFile around an open file does not.
    return gzip.open(path) if is_packed(path) else path.open("rb")  # type: ignore[return-value]  # it reads


def find_pair(folder: Path, part: str) -> tuple[Path, Path] | None:
    """The image and label files of ``part`` in a folder, or None."""
    for prefix in _PREFIXES[part]:
        pair = [
            next((path for end in ("", ".gz") if (path := folder / (name + end)).is_file()), None)
            for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        ]
        if pair[0] and pair[1]:
            return pair[0], pair[1]
    return None


def read_idx(images_path: Path, labels_path: Path, options: Options) -> Images:
    """The images of a pair of idx files: one grey channel, labels 0 to 255.

    Raises:
        DataError: bad-collection, option-not-applicable.
    """
    options.accept("idx files")
    with open_plain(images_path) as file:
        count, height, width = _header(images_path, file, IMAGES_MAGIC, 3)
    with open_plain(labels_path) as file:
        (labels,) = _header(labels_path, file, LABELS_MAGIC, 1)
    if count != labels:
        bad_collection(labels_path, f"{labels} labels for the {count} images of {images_path}")
    if not 0 < height * width <= _MAX_ITEM_BYTES:
        bad_collection(images_path, f"images of {height} x {width} pixels")
    return Images(count, _stream(images_path, labels_path))


def _stream(images_path: Path, labels_path: Path) -> Iterator[Image]:
    with open_plain(images_path) as images, open_plain(labels_path) as labels:
        count, height, width = _header(images_path, images, IMAGES_MAGIC, 3)
        _header(labels_path, labels, LABELS_MAGIC, 1)
        for number in range(count):
            pixels = _read(images_path, images, height * width, number)
            label = _read(labels_path, labels, 1, number)[0]
            shaped = np.frombuffer(pixels, np.uint8).reshape(1, height, width)
            yield Image(Item(shaped, label))


def _header(path: Path, file: BinaryIO, magic: bytes, axes: int) -> Sequence[int]:
    head = _read(path, file, 4 + 4 * axes, None)
    if not head.startswith(magic):
        bad_collection(path, f"is no idx file of {axes} axes of bytes")
    return [int(size) for size in np.frombuffer(head, ">u4", axes, 4)]


def _read(path: Path, file: BinaryIO, size: int, number: int | None) -> bytes:
    where = "in its header" if number is None else f"at item {number}"
    try:
        data = file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        bad_collection(path, f"is damaged {where}: {error}")
    if len(data) < size:
        bad_collection(path, f"ends {where}")
    return data
