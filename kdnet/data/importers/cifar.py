"""The binary version of CIFAR-10: records of a label and 3 x 32 x 32 bytes."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from kdnet.data.datum import Item
from kdnet.data.importers.images import Image, Images, Options, bad_collection

SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
CLASSES = 10

_NAMES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}


def find_batches(folder: Path, part: str) -> list[Path]:
    """The batch files of ``part`` that a folder has; CIFAR-10's own sub-folder is looked into."""
    for place in (folder, folder / "cifar-10-batches-bin"):
        found = [place / name for name in _NAMES[part] if (place / name).is_file()]
        if found:
            return found
    return []


def read_batches(paths: Sequence[Path], options: Options) -> Images:
    """The images of batch files, colour planes in the file's order: red, green, blue.

    Raises:
        DataError: bad-collection, option-not-applicable.
    """
    options.accept("CIFAR-10 batches")
    counts = [_count(path, path.stat().st_size) for path in paths]

    def stream() -> Iterator[Image]:
        for path, count in zip(paths, counts, strict=True):
            with path.open("rb") as file:
                yield from _records(path, file, count)

    return Images(sum(counts), stream())


def read_archive(path: Path, part: str, options: Options) -> Images:
    """As :func:`read_batches`, from the published .tar.gz without unpacking it.

    Raises:
        DataError: bad-collection, option-not-applicable.
    """
    options.accept("a CIFAR-10 archive", "part")
    try:
        with tarfile.open(path) as archive:
            found = {PurePosixPath(member.name).name: member for member in archive}
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        bad_collection(path, f"is no tar archive, or damaged: {error}")
    members = [found[name] for name in _NAMES[part] if name in found]
    if not members:
        bad_collection(path, f"has no {_NAMES[part][0]}")
    counts = [_count(path, member.size) for member in members]
    return Images(sum(counts), _from_archive(path, members, counts))


def _from_archive(
    path: Path, members: list[tarfile.TarInfo], counts: list[int]
) -> Iterator[Image]:
    with tarfile.open(path) as archive:
        for member, count in zip(members, counts, strict=True):
            file = archive.extractfile(member)
            if file is None:
                bad_collection(path, f"{member.name} is not a file")
            yield from _records(path, file, count)


def _count(path: Path, size_bytes: int) -> int:
    if size_bytes == 0 or size_bytes % RECORD_BYTES:
        bad_collection(path, f"{size_bytes} bytes are no whole number of {RECORD_BYTES}")
    return size_bytes // RECORD_BYTES


def _records(path: Path, file: IO[bytes], count: int) -> Iterator[Image]:
    for number in range(count):
        try:
            record = file.read(RECORD_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            bad_collection(path, f"is damaged at record {number}: {error}")
        if len(record) < RECORD_BYTES:
            bad_collection(path, f"ends at record {number}")
        if record[0] >= CLASSES:
            bad_collection(path, f"record {number} has label {record[0]}, not 0 to {CLASSES - 1}")
        pixels = np.frombuffer(record, np.uint8, offset=1).reshape(SHAPE)
        yield Image(Item(pixels, record[0]))
