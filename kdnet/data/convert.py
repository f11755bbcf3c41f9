"""Image collections to LMDB: knows a collection by its content."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from kdnet.data.database import Record
from kdnet.data.datum import Item, Shape, write_datum
from kdnet.data.image import resize
from kdnet.data.importers.arrays import read_npz
from kdnet.data.importers.cifar import find_batches, read_archive, read_batches
from kdnet.data.importers.idx import (
    IMAGES_MAGIC,
    LABELS_MAGIC,
    find_pair,
    is_packed,
    open_plain,
    read_idx,
)
from kdnet.data.importers.images import Image, Images, Options
from kdnet.data.importers.listed import read_listed
from kdnet.data.lmdb_writer import check_target, write_database
from kdnet.data.paths import suggest
from kdnet.data.steps import Advance, Start, ignore
from kdnet.errors import DataError, fail

_ZIP_MAGIC = b"PK\x03\x04"
_KEY_BYTES = 511
"""LMDB's limit on a key."""


@dataclass(frozen=True)
class Written:
    """What a conversion wrote: how many images, and the shape of each."""

    count: int
    shape: Shape


def open_collection(sources: Sequence[Path], options: Options) -> Images:
    """The images of a collection, whichever kind it is.

    Args:
        sources: One folder (idx files, CIFAR-10 batches, or train.npz and test.npz), a pair of
            idx files in either order, CIFAR-10 batches or their archive, an .npz, or an image
            list.
        options: What to take.

    Raises:
        DataError: missing-collection, unknown-collection, part-needed, and the reader's own.
    """
    for path in sources:
        if not path.exists():
            hint = suggest(str(path))
            fail(DataError, "missing-collection", f'"{path}" does not exist', help=hint)
    first = sources[0]
    if len(sources) == 1 and first.is_dir():
        return _open_folder(first, options)
    heads = [_head(path) for path in sources]
    if sorted(heads) == [LABELS_MAGIC, IMAGES_MAGIC]:
        images, labels = sources if heads[0] == IMAGES_MAGIC else reversed(sources)
        return read_idx(images, labels, options)
    if all(_is_batch(path) for path in sources):
        return read_batches(sources, options)
    if len(sources) > 1:
        return _unknown(sources)
    return _open_file(first, heads[0], options)


def convert(
    sources: Sequence[Path],
    target: Path,
    options: Options,
    *,
    size: tuple[int, int] | None = None,
    force: bool = False,
    start: Start = ignore,
) -> Written:
    """Write a collection as an LMDB of Datum records with keys 00000000, 00000001, ...

    Args:
        sources: As :func:`open_collection`.
        target: The folder to make.
        options: What to take.
        size: Height and width to resize to.
        force: Replace a database that is there.
        start: Hears of the images.

    Raises:
        DataError: as :func:`open_collection` and :func:`write_database`; image-shape,
            resize-encoded.
    """
    check_target(target, force=force)
    if size is not None and options.encoded:
        fail(DataError, "resize-encoded", "--resize and --encoded exclude each other")
    collection = open_collection(sources, options)
    shapes: list[Shape] = []
    records = _records(collection, size, shapes, start(collection.count))
    count = write_database(target, records, force=force)
    return Written(count, shapes[0])


def _records(
    collection: Images,
    size: tuple[int, int] | None,
    shapes: list[Shape],
    advance: Advance,
) -> Iterator[Record]:
    for number, image in enumerate(collection.images):
        made = _resized(image, size)
        if not shapes:
            shapes.append(made.item.pixels.shape)
        _check_shape(number, made, shapes[0])
        yield _key(number, made.name), write_datum(made.item, made.encoded)
        advance(1)


def _resized(image: Image, size: tuple[int, int] | None) -> Image:
    if size is None:
        return image
    if image.item.pixels.dtype != np.uint8:
        fail(DataError, "option-not-applicable", "--resize does not apply to images of numbers")
    return replace(image, item=Item(resize(image.item.pixels, *size), image.item.label))


def _check_shape(number: int, image: Image, first: Shape) -> None:
    shape = image.item.pixels.shape
    if shape != first:
        name = f' ("{image.name}")' if image.name else ""
        text = f"image {number}{name} has shape {shape}; the first has {first}"
        hint = ("--resize HEIGHT WIDTH makes them equal",)
        fail(DataError, "image-shape", text, help=hint)


def _key(number: int, name: str) -> bytes:
    key = f"{number:08}_{name}" if name else f"{number:08}"
    return key.encode("utf-8", "surrogateescape")[:_KEY_BYTES]


def _open_folder(folder: Path, options: Options) -> Images:
    parts = [options.part] if options.part else ["train", "test"]
    found = {part: _part_of(folder, part) for part in parts}
    openers = {part: opener for part, opener in found.items() if opener is not None}
    if not openers:
        return _unknown([folder])
    if len(openers) > 1:
        text = f'"{folder}" has a train and a test part'
        fail(DataError, "part-needed", text, help=("say --part train or --part test",))
    (opener,) = openers.values()
    return opener(replace(options, part=None))


def _part_of(folder: Path, part: str) -> Callable[[Options], Images] | None:
    pair = find_pair(folder, part)
    if pair is not None:
        images, labels = pair
        return lambda options: read_idx(images, labels, options)
    batches = find_batches(folder, part)
    if batches:
        return lambda options: read_batches(batches, options)
    archive = folder / f"{part}.npz"
    if archive.is_file():
        return lambda options: read_npz(archive, options)
    return None


def _open_file(path: Path, head: bytes, options: Options) -> Images:
    if head == _ZIP_MAGIC:
        return read_npz(path, options)
    if _is_tar(path):
        if options.part is None:
            text = f'"{path}" has a train and a test part'
            fail(DataError, "part-needed", text, help=("say --part train or --part test",))
        return read_archive(path, options.part, options)
    if b"\0" in head or is_packed(path):
        return _unknown([path])
    return read_listed(path, options)


def _head(path: Path) -> bytes:
    """The first four bytes, after unpacking."""
    try:
        with open_plain(path) as file:
            return file.read(4)
    except (OSError, EOFError, zlib.error) as error:
        fail(DataError, "unknown-collection", f'"{path}" cannot be read: {error}')


def _is_batch(path: Path) -> bool:
    return path.suffix == ".bin"


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def _unknown(sources: Sequence[Path]) -> NoReturn:
    hint = (
        "known are: a folder or a pair of idx files, CIFAR-10's .bin batches or .tar.gz,",
        "an .npz of images and labels, and a text file of image paths and labels",
    )
    names = ", ".join(f'"{path}"' for path in sources)
    fail(DataError, "unknown-collection", f"{names}: no known kind of images", help=hint)
