"""Image files to a database, record for record as convert_imageset makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdnet.data.database import Record
from kdnet.data.datum import Shape
from kdnet.data.image import ENCODERS, Pixels, encode, resize
from kdnet.data.image_list import Entry, decoded, image_bytes, read_list
from kdnet.data.leveldb_writer import fill_leveldb
from kdnet.data.lmdb_writer import check_target, fill_lmdb, write_database
from kdnet.data.order import permutation
from kdnet.data.steps import Start, ignore
from kdnet.errors import DataError, Diagnostic, Span, fail
from kdnet.schema import kdnet_pb2 as pb

_KEY_BYTES = 511
"""LMDB's limit on a key."""

_BACKENDS = {"lmdb": fill_lmdb, "leveldb": fill_leveldb}

Warn = Callable[[Diagnostic], None]


@dataclass(frozen=True)
class ImagesetOptions:
    """What convert_imageset's flags say.

    Attributes:
        gray: Decode to one channel.
        shuffle: Put the list in a random order.
        seed: That order's seed.
        backend: "lmdb" or "leveldb".
        size: Height and width to resize to.
        check_size: Refuse images of another size than the first.
        encoded: Store files, as they are where nothing is done to them.
        encode_type: How stored files are encoded, such as "png"; else as they are.
        force: Replace a database that is there.
    """

    gray: bool = False
    shuffle: bool = False
    seed: int = 0
    backend: str = "lmdb"
    size: tuple[int, int] | None = None
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""
    force: bool = False


@dataclass(frozen=True)
class Imageset:
    """What a conversion wrote: records, those left out, and the shape of the first image."""

    count: int
    skipped: int
    shape: Shape


def convert_imageset(
    root: str,
    list_path: Path,
    target: Path,
    options: ImagesetOptions,
    warn: Warn,
    start: Start = ignore,
) -> Imageset:
    """Write the images of a list as Datum records with keys ``00000000_path``.

    As in Caffe a file that cannot be read is left out, with a warning, and its number with it.

    Args:
        root: Put before every path of the list as it is.
        list_path: Lines of a path, a space and a label.
        target: The folder to make.
        options: The flags.
        warn: Hears of every file that is left out.
        start: Hears of the lines.

    Raises:
        DataError: as :func:`read_list` and :func:`write_database`; image-shape,
            unknown-encoding, no-image.
    """
    check_target(target, force=options.force)
    if options.encode_type:
        _check_encoding(options.encode_type, None)
    if not list_path.is_file():
        fail(DataError, "missing-collection", f'"{list_path}" is not a file')
    work = _Work(root, list_path, options, warn)
    records = work.records(start)
    count = write_database(target, records, force=options.force, fill=_BACKENDS[options.backend])
    return Imageset(count, work.skipped, work.shape)


class _Work:
    """One conversion; ``shape`` is the first image's."""

    def __init__(self, root: str, list_path: Path, options: ImagesetOptions, warn: Warn) -> None:
        self._root, self._list, self._options, self._warn = root, list_path, options, warn
        self.shape: Shape = ()
        self.skipped = 0

    def records(self, start: Start) -> Iterator[Record]:
        """The records in the order of their keys."""
        entries = read_list(self._list)
        if self._options.shuffle:
            order = permutation(len(entries), self._options.seed, "convert imageset")
            entries = [entries[row] for row in order.tolist()]
        advance = start(len(entries))
        for number, entry in enumerate(entries):
            record = self._record(entry)
            if record is not None:
                key = f"{number:08}_{entry.path}".encode("utf-8", "surrogateescape")
                yield key[:_KEY_BYTES], record
            advance(1)
        if not self.shape:
            hint = (f'"{self._root}" is put before each path as it is; folders end with "/"',)
            text = f'no image that "{self._list}" lists can be read'
            fail(DataError, "no-image", text, help=hint)

    def _record(self, entry: Entry) -> bytes | None:
        """The Datum of a line; None where its file cannot be read."""
        channels = 1 if self._options.gray else 3
        try:
            data = image_bytes(entry, self._list, self._root)
            pixels = decoded(data, entry, self._list, channels)
        except DataError as error:
            for found in error.diagnostics:
                self._warn(found)
            self.skipped += 1
            return None
        if self._options.size:
            pixels = resize(pixels, *self._options.size)
        self._check_shape(entry, pixels.shape)
        return self._datum(entry, data, pixels).SerializeToString(deterministic=True)

    def _check_shape(self, entry: Entry, shape: Shape) -> None:
        self.shape = self.shape or shape
        if self._options.check_size and shape != self.shape:
            text = f'"{entry.path}" has shape {shape}; the first has {self.shape}'
            hint = ("--resize-height H and --resize-width W make them equal",)
            fail(DataError, "image-shape", text, span=self._span(entry), help=hint)

    def _datum(self, entry: Entry, data: bytes, pixels: Pixels) -> pb.Datum:
        """Fields are set where Caffe sets them, which decides about the record's bytes."""
        kind = self._kind(entry)
        if kind is None:
            channels, height, width = pixels.shape
            plain = pb.Datum(channels=channels, height=height, width=width, label=entry.label)
            plain.data, plain.encoded = pixels.tobytes(), False
            return plain
        if self._options.size or not _is_of_kind(entry.path, kind):
            _check_encoding(kind, self._span(entry))
            data = encode(pixels, kind)
        return pb.Datum(data=data, label=entry.label, encoded=True)

    def _kind(self, entry: Entry) -> str | None:
        """How the file is stored; None for pixels."""
        if self._options.encode_type:
            return self._options.encode_type
        return _ending(entry.path) if self._options.encoded else None

    def _span(self, entry: Entry) -> Span:
        return Span(str(self._list), entry.line, 1)


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.removeprefix(".").lower()


def _is_of_kind(path: str, kind: str) -> bool:
    ending, wanted = _ending(path), kind.lower()
    return ending == wanted or (wanted == "jpg" and ending == "jpeg")


def _check_encoding(kind: str, span: Span | None) -> None:
    if kind.lower() not in ENCODERS:
        text = f'images cannot be encoded as "{kind}"'
        hint = (f"known: {', '.join(ENCODERS)}",)
        fail(DataError, "unknown-encoding", text, span=span, help=hint)
