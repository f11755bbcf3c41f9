"""Hashes of what files hold, wherever they lie: enough to notice that data are others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from kdnet.errors import DataError, fail

WHOLE_BYTES = 64 * 2**20
_PIECES = 64
_PIECE_BYTES = 2**20


def text_hash(*parts: str) -> str:
    """A SHA-256 of texts, each with its length, so that no two lists of texts are alike."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def content_hash(paths: Iterable[Path]) -> str:
    """A SHA-256 of the sizes and contents of files, in order; their names do not count.

    A file above :data:`WHOLE_BYTES` counts by its size and 64 pieces of 1 MiB spread from its
    first byte to its last. An LMDB notes every change in its first pages, so none is missed.

    Raises:
        DataError: unreadable-data.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            _add(digest, path)
        except OSError as error:
            text = f'"{path}" cannot be read: {error.strerror or error}'
            fail(DataError, "unreadable-data", text)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        size = path.stat().st_size
        digest.update(b"%d:" % size)
        if size <= WHOLE_BYTES:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
            return
        for number in range(_PIECES):
            file.seek((size - _PIECE_BYTES) * number // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
