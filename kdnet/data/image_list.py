"""Text files that list images: one path and one integer label a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdnet.data.image import Pixels, decode
from kdnet.data.paths import find, suggest
from kdnet.errors import DataError, Diagnostic, Faults, Span, fail

_MAX_FILE_BYTES = 2**30
_MAX_LIST_BYTES = 2**32


@dataclass(frozen=True)
class Entry:
    """One line: the path as written, the label, and the line's number from 1."""

    path: str
    label: int
    line: int


def list_lines(path: Path, code: str) -> list[str]:
    """The lines of a text file of paths; bytes that are not UTF-8 stay what they are on the disk.

    Raises:
        DataError: ``code``: it cannot be read, or is no text.
    """
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            fail(DataError, code, f'"{path}" is no list: it is larger than 4 GiB')
        data = path.read_bytes()
    except OSError as error:
        fail(DataError, code, f'"{path}" cannot be read as text: {error.strerror or error}')
    if b"\0" in data:
        fail(DataError, code, f'"{path}" cannot be read as text: it holds zero bytes')
    # Only these end a line in C++: a name may hold any other separator that Unicode knows.
    text = data.decode("utf-8-sig", "surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_list(path: Path) -> list[Entry]:
    """The entries of an image list; empty lines are left out.

    Raises:
        DataError: bad-image-list, at the lines that have no integer label.
    """
    lines = list_lines(path, "bad-image-list")
    faults = Faults(DataError)
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, label = line.rsplit(maxsplit=1)
            entries.append(Entry(name.strip(), _label(label), number))
        except ValueError:
            span = Span(str(path), number, 1, len(line), line)
            faults.add(Diagnostic("bad-image-list", "not a path and an integer label", span))
    faults.raise_if_any()
    if not entries:
        fail(DataError, "bad-image-list", f'"{path}" lists no image')
    return entries


def image_bytes(entry: Entry, list_path: Path, root: str) -> bytes:
    """The file that an entry names: ``root`` and its path put together as they are.

    Raises:
        DataError: missing-image, corrupt-image; the position is the entry's line.
    """
    name = root + entry.path
    found = find(name, str(list_path))
    span = Span(str(list_path), entry.line, 1)
    if found is None:
        hint = suggest(name, str(list_path))
        fail(DataError, "missing-image", f'"{name}" does not exist', span=span, help=hint)
    try:
        if found.stat().st_size > _MAX_FILE_BYTES:
            fail(DataError, "corrupt-image", f'"{found}" is larger than 1 GiB', span=span)
        return found.read_bytes()
    except OSError as error:
        text = f'"{found}" cannot be read: {error.strerror}'
        fail(DataError, "corrupt-image", text, span=span)


def read_image(entry: Entry, list_path: Path, root: str, channels: int | None) -> Pixels:
    """The pixels (C, H, W) of the image that an entry names.

    Raises:
        DataError: missing-image, corrupt-image; the position is the entry's line.
    """
    return decoded(image_bytes(entry, list_path, root), entry, list_path, channels)


def decoded(data: bytes, entry: Entry, list_path: Path, channels: int | None) -> Pixels:
    """The pixels (C, H, W) of an entry's file.

    Raises:
        DataError: corrupt-image; the position is the entry's line.
    """
    try:
        return decode(data, channels)
    except ValueError as error:
        span = Span(str(list_path), entry.line, 1)
        fail(DataError, "corrupt-image", f'"{entry.path}" {error}', span=span)


def _label(text: str) -> int:
    label = int(text)
    if not -(2**31) <= label < 2**31:
        raise ValueError
    return label
