"""Published image collections, fetched or copied, and known by the digest of their content."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kdnet.data.importers.idx import open_plain
from kdnet.data.paths import suggest
from kdnet.data.steps import Advance, Start, ignore
from kdnet.errors import DataError, fail
from kdnet.weights.files import atomic_write

_CHUNK_BYTES = 2**20
_TIMEOUT_S = 30


@dataclass(frozen=True)
class RemoteFile:
    """One file of a collection.

    ``sha256`` and ``size_bytes`` are those of the content: of a .gz file, unpacked, since
    mirrors and packages compress the same content in their own ways. ``sent_bytes`` is the size
    of the file as published.
    """

    name: str
    sha256: str
    size_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Collection:
    """A published collection: the folder of its files on the network, and the files."""

    base: str
    files: tuple[RemoteFile, ...]


def _idx_files(*published: tuple[str, int]) -> tuple[RemoteFile, ...]:
    names = (
        ("train-images-idx3-ubyte.gz", 47_040_016),
        ("train-labels-idx1-ubyte.gz", 60_008),
        ("t10k-images-idx3-ubyte.gz", 7_840_016),
        ("t10k-labels-idx1-ubyte.gz", 10_008),
    )
    return tuple(
        RemoteFile(name, digest, size, sent)
        for (name, size), (digest, sent) in zip(names, published, strict=True)
    )


PUBLISHED = {
    "mnist": Collection(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx_files(
            ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 9_912_422),
            ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 28_881),
            ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 1_648_877),
            ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 4_542),
        ),
    ),
    "fashion-mnist": Collection(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        _idx_files(
            ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 26_421_880),
            ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 29_515),
            ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 4_422_102),
            ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 5_148),
        ),
    ),
    "cifar10": Collection(
        "https://www.cs.toronto.edu/~kriz/",
        (
            RemoteFile(
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170_052_171,
                170_052_171,
            ),
        ),
    ),
}


def obtain(
    collection: Collection,
    folder: Path,
    *,
    source: Path | None = None,
    start: Start = ignore,
) -> list[Path]:
    """Put a collection's files into ``folder``, each checked before it gets its name.

    A file that is there already and right is kept as it is.

    Args:
        collection: What to get.
        folder: Where to put it; made when missing.
        source: Take the files from this folder instead of the network; a .gz file may be there
            unpacked.
        start: Hears of the bytes.

    Raises:
        DataError: no-network, missing-file, wrong-content, target-exists.
        WeightsError: cannot-write.
    """
    advance = start(sum(file.sent_bytes for file in collection.files))
    return [_obtain(collection, file, folder, source, advance) for file in collection.files]


def _obtain(
    collection: Collection,
    file: RemoteFile,
    folder: Path,
    source: Path | None,
    advance: Advance,
) -> Path:
    target = folder / file.name
    if target.exists():
        if not _is_right(target, file):
            hint = ("move it away, or choose another folder",)
            text = f'"{target}" is there, but it is not the published file'
            fail(DataError, "target-exists", text, help=hint)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if source is None:
        origin = collection.base + file.name
        chunks = _from_network(origin)
    else:
        origin = str(source / file.name)
        chunks = _from_folder(source, file)
    # A compressed file may be a little larger than what it holds.
    limit_bytes = file.size_bytes + file.size_bytes // 100 + _CHUNK_BYTES
    with atomic_write(target) as out:
        for chunk in chunks:
            limit_bytes -= len(chunk)
            if limit_bytes < 0:
                _wrong(origin)
            out.write(chunk)
            advance(len(chunk))
        out.flush()
        if not _is_right(Path(out.name), file):
            _wrong(origin)
    return target


def _from_network(url: str) -> Iterator[bytes]:
    try:
        # The addresses are this module's constants, so no other scheme can be opened.
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:  # noqa: S310  # constant https
            while chunk := reply.read(_CHUNK_BYTES):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        hint = ("give files that are already there with --from DIR",)
        text = f"{url} cannot be fetched: {getattr(error, 'reason', None) or error}"
        fail(DataError, "no-network", text, help=hint)


def _from_folder(folder: Path, file: RemoteFile) -> Iterator[bytes]:
    path = folder / file.name
    plain = folder / file.name.removesuffix(".gz")
    try:
        if path.is_file():
            with path.open("rb") as packed:
                while chunk := packed.read(_CHUNK_BYTES):
                    yield chunk
        elif plain.is_file():
            yield from _packed(plain)
        else:
            hint = suggest(str(path))
            fail(DataError, "missing-file", f'"{path}" does not exist', help=hint)
    except OSError as error:
        fail(DataError, "missing-file", f'"{path}" cannot be read: {error.strerror}')


def _packed(path: Path) -> Iterator[bytes]:
    """The file as gzip makes it, chunk by chunk."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield packer.compress(chunk)
    yield packer.flush()


def _is_right(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the published content, whatever its compression."""
    digest = hashlib.sha256()
    left = file.size_bytes
    unpacks = file.name.endswith("-ubyte.gz")
    try:
        with open_plain(path) if unpacks else path.open("rb") as content:
            while left >= 0 and (chunk := content.read(_CHUNK_BYTES)):
                digest.update(chunk)
                left -= len(chunk)
    except (OSError, EOFError, zlib.error):
        return False
    return left == 0 and digest.hexdigest() == file.sha256


def _wrong(origin: str) -> NoReturn:
    fail(DataError, "wrong-content", f"{origin} does not have the published content")
