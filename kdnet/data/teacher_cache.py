"""Outputs of a frozen net by record, on disk: computed once, read in every later epoch.

A cache is a folder named by the hash of its key, below the folder that the user names. It holds
``key.json``, one file of values (and with top-k two more) a blob, and ``present``: a byte a
record, 1 where the record's values are there. That byte reaches the disk after the values do, so
whatever ends a run leaves a cache that can be used.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.data.cache import Rows
from kdnet.data.content import text_hash
from kdnet.data.datum import Shape
from kdnet.data.top_k import Classes, Floats, largest, whole
from kdnet.errors import DataError, fail

KEY_FILE, PRESENT_FILE = "key.json", "present"
FLUSH_EVERY_S = 10.0

Key = Mapping[str, Any]


@dataclass(frozen=True)
class CacheOptions:
    """``--cache-teacher`` and its flags; ``top_k`` 0 keeps all classes."""

    folder: str
    top_k: int = 0
    fp16: bool = False


@dataclass(frozen=True)
class StoredBlob:
    """How one blob is kept; ``shape`` is that of a record, ``form`` that of its class scores."""

    name: str
    shape: Shape
    fp16: bool = False
    top_k: int = 0
    form: str = ""

    @property
    def stored(self) -> str:
        """Said in the key and in the log: ``float16, the 10 largest logits``."""
        kind = "float16" if self.fp16 else "float32"
        return f"{kind}, the {self.top_k} largest {self.form}" if self.top_k else kind

    @property
    def arrays(self) -> tuple[tuple[str, Shape, Any], ...]:
        """Name, shape of a record and type of each file."""
        kind = np.float16 if self.fp16 else np.float32
        if not self.top_k:
            return (("values", self.shape, kind),)
        wide = (self.top_k,)
        return (("values", wide, kind), ("classes", wide, np.int32), ("rest", (), np.float32))

    def encoded(self, values: Floats) -> tuple[NDArray[Any], ...]:
        """What is kept of a batch of values (N, ...)."""
        if not self.top_k:
            return (self._narrow(values),)
        kept, classes, rest = largest(values.reshape(len(values), -1), self.top_k, self.form)
        return self._narrow(kept), classes, rest

    def _narrow(self, values: Floats) -> NDArray[Any]:
        if not self.fp16:
            return values
        with np.errstate(over="ignore"):
            return values.astype(np.float16)

    def decoded(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        """The values (N, ...) that are made of what is kept."""
        values = np.asarray(arrays[0], np.float32)
        if not self.top_k:
            return values
        classes, rest = np.asarray(arrays[1]), np.asarray(arrays[2])
        scores = whole(values, classes, rest, count=prod(self.shape), form=self.form)
        return scores.reshape(len(values), *self.shape)

    def error(self, live: Floats, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Each record's largest difference between live values and what is kept of them.

        Of the k largest, where neighbours may have changed places, each must be what its class is
        now, and no other class may be above the least of them. Relative to the batch's largest.
        """
        scale = max(float(np.abs(live).max(initial=0)), 1e-30)
        rows = live.reshape(len(live), -1).astype(np.float64)
        values = np.asarray(arrays[0], np.float64).reshape(len(rows), -1)
        if not self.top_k:
            return np.asarray(np.abs(rows - values).max(axis=1) / scale)
        classes: Classes = np.asarray(arrays[1])
        now = np.take_along_axis(rows, classes.astype(np.int64), axis=1)
        others = rows.copy()
        np.put_along_axis(others, classes.astype(np.int64), -np.inf, axis=1)
        above = np.maximum(others.max(axis=1) - values.min(axis=1), 0)
        return np.asarray(np.maximum(np.abs(now - values).max(axis=1), above) / scale)


class TeacherCache:
    """The stored blobs of ``count`` records.

    Args:
        folder: The cache's own folder.
        blobs: What it holds.
        count: How many records the data have; kept as ``size``.

    Raises:
        DataError: damaged-cache.
    """

    def __init__(self, folder: Path, blobs: Sequence[StoredBlob], count: int) -> None:
        self.folder = folder
        self.blobs = tuple(blobs)
        self.size = count
        self._files = [
            [_opened(path, (count, *shape), kind) for path, shape, kind in _files(folder, n, blob)]
            for n, blob in enumerate(blobs)
        ]
        self._present = _opened(folder / PRESENT_FILE, (count,), np.uint8)
        self._known = np.asarray(self._present) != 0
        self._pending: list[Rows] = []
        self._flushed = time.monotonic()

    @property
    def count(self) -> int:
        """How many records are there."""
        return int(self._known.sum())

    def has(self, records: Rows) -> NDArray[np.bool_]:
        """Which of the records are there."""
        return np.asarray(self._known[records])

    def kept(self, blob: int, records: Rows) -> list[NDArray[Any]]:
        """What the files of blob number ``blob`` hold of the records."""
        return [np.asarray(file[records]) for file in self._files[blob]]

    def read(self, records: Rows) -> tuple[Floats, ...]:
        """The blobs of records that are there, (N, ...) each."""
        return tuple(
            blob.decoded(self.kept(number, records)) for number, blob in enumerate(self.blobs)
        )

    def write(self, records: Rows, values: Sequence[Floats]) -> None:
        """Keep the blobs of records, (N, ...) each.

        Raises:
            DataError: as :func:`check_finite`.
        """
        for blob, live, files in zip(self.blobs, values, self._files, strict=True):
            arrays = blob.encoded(live)
            check_finite(blob, live, arrays[0], records)
            for file, array in zip(files, arrays, strict=True):
                file[records] = array
        self._known[records] = True
        self._pending.append(records)
        if time.monotonic() - self._flushed >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Bring everything to the disk: values first, then that they are there."""
        if self._pending:
            for file in (file for files in self._files for file in files):
                file.flush()
            self._present[np.concatenate(self._pending)] = 1
            self._present.flush()
            self._pending = []
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Bring everything to the disk; nothing can be read or written any more."""
        self.flush()
        self._files, self._known = [], np.zeros(0, bool)


def check_finite(blob: StoredBlob, live: Floats, kept: NDArray[Any], records: Rows) -> None:
    """Refuse values that are no numbers, or none of float16's.

    Raises:
        DataError: non-finite-teacher, fp16-range.
    """
    for code, array, text in (
        ("non-finite-teacher", live, "is not finite"),
        ("fp16-range", kept, "has values beyond float16's 65504"),
    ):
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            record = int(records[int(np.argmin(finite))])
            hint = ("keep them as float32",) if code == "fp16-range" else ()
            fail(DataError, code, f'blob "{blob.name}" of record {record} {text}', help=hint)


def open_cache(
    parent: Path, key: Key, blobs: Sequence[StoredBlob], count: int
) -> tuple[TeacherCache, str]:
    """The cache of a key, made where there is none, and a sentence on why it had to be made.

    Args:
        parent: The folder that the user names.
        key: Everything that the values depend on.
        blobs: What it holds.
        count: How many records the data have.

    Raises:
        DataError: cannot-write, disk-space, damaged-cache.
    """
    text = json.dumps(key, indent=2, sort_keys=True) + "\n"
    folder = parent / text_hash(text)[:16]
    told = ""
    if not folder.exists():
        told = _why_new(parent, key)
        try:
            _create(folder, text, blobs, count)
        except OSError as error:
            fail(DataError, "cannot-write", f'cannot write "{folder}": {error.strerror or error}')
    if _text_of(folder / KEY_FILE) != text:
        _damaged(folder, f"{KEY_FILE} is not that of the folder's name")
    return TeacherCache(folder, blobs, count), told


def _create(folder: Path, text: str, blobs: Sequence[StoredBlob], count: int) -> None:
    """Make a cache without any record beside its place, and put it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.new")
    files = [file for number, blob in enumerate(blobs) for file in _files(made, number, blob)]
    files.append((made / PRESENT_FILE, (), np.uint8))
    sizes = {path: count * _row_bytes(shape, kind) for path, shape, kind in files}
    hint = "--cache-fp16 halves what is kept, --cache-top-k K keeps K classes a record"
    check_space(folder.parent, sum(sizes.values()), hint)
    try:
        made.mkdir()
        for path, size in sizes.items():
            _reserve(path, size)
        (made / KEY_FILE).write_text(text, encoding="utf-8")
        _put_in_place(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put_in_place(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        # Another run with the same teacher may have been faster: its cache serves both.
        if not (folder / KEY_FILE).is_file():
            raise


def check_space(folder: Path, needed: int, hint: str) -> None:
    """Refuse to write what the disk has no room for.

    Raises:
        DataError: disk-space.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = (
            f'the outputs of the teacher need {needed / 1e6:.1f} MB in "{folder}", where '
            f"{free / 1e6:.1f} MB are free"
        )
        fail(DataError, "disk-space", text, help=(hint,))


def _reserve(path: Path, size: int) -> None:
    """A file of zeros with its place on the disk: a full disk later on would kill the process."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)


def _files(folder: Path, number: int, blob: StoredBlob) -> list[tuple[Path, Shape, Any]]:
    """Path, shape of a record and type of each file of a blob; the number makes names differ."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", blob.name)[:80]
    return [
        (folder / f"{number:02}_{name}.{part}", shape, kind) for part, shape, kind in blob.arrays
    ]


def _row_bytes(shape: Shape, kind: Any) -> int:
    return prod(shape) * int(np.dtype(kind).itemsize)


def _opened(path: Path, shape: Shape, kind: Any) -> np.memmap[Any, Any]:
    try:
        found = path.stat().st_size
        if found != _row_bytes(shape, kind):
            text = f'"{path.name}" has {found} of {_row_bytes(shape, kind)} bytes'
            _damaged(path.parent, text)
        return np.memmap(path, kind, "r+", shape=shape)
    except OSError as error:
        _damaged(path.parent, f'"{path.name}": {error.strerror or error}')


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _damaged(folder: Path, reason: str) -> NoReturn:
    text = f'the teacher cache "{folder}" is damaged: {reason}'
    fail(DataError, "damaged-cache", text, help=("delete the folder: it is made anew",))


def _why_new(parent: Path, key: Key) -> str:
    """How the key differs from that of the cache nearest to it; empty where there is none."""
    wanted, nearest = _flat(key), list[str]()
    for path in sorted(parent.glob(f"*/{KEY_FILE}")):
        try:
            known = _flat(json.loads(_text_of(path)))
        except ValueError:
            continue
        names = [*wanted, *(name for name in known if name not in wanted)]
        other = [name for name in names if wanted.get(name) != known.get(name)]
        if not nearest or len(other) < len(nearest) - 1:
            nearest = [path.parent.name, *other]
    if not nearest:
        return ""
    more = f" and {len(nearest) - 4} more" if len(nearest) > 4 else ""
    return f'"{parent / nearest[0]}" differs in {", ".join(nearest[1:4])}{more}'


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """A JSON object as one level: ``weights teacher/ip/weight``."""
    if not isinstance(value, dict):
        return {name: str(value)}
    return {
        path: text
        for key, inner in value.items()
        for path, text in _flat(inner, f"{name} {key}".strip()).items()
    }
