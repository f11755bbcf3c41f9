"""R-CNN's window files: images, each with scored boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.data.image_list import Entry, list_lines
from kdnet.errors import DataError, Span, fail

Integers = NDArray[np.int64]

CODE = "bad-window-file"
COLUMNS = ("class", "overlap", "x1", "y1", "x2", "y2")
_LIMIT = 2**31


@dataclass(frozen=True, eq=False)
class WindowFile:
    """The images of a window file, and the windows that are drawn from.

    Attributes:
        images: Path and line of each image; the label is 0.
        foreground: Rows of (image, label, x1, y1, x2, y2), corners included.
        background: Likewise, with label 0.
    """

    images: Sequence[Entry]
    foreground: Integers
    background: Integers


def read_windows(path: Path, least: float, most: float) -> WindowFile:
    """Read a window file.

    For each image it holds ``# NUMBER``, a path, channels, height, width, the number of windows,
    and for each of these ``class overlap x1 y1 x2 y2``.

    Args:
        path: The file.
        least: The overlap from which a window is foreground.
        most: The overlap below which it is background; those between are left out.

    Raises:
        DataError: bad-window-file, at the line.
    """
    words = _Words(path)
    images: list[Entry] = []
    kept: tuple[list[Integers], list[Integers]] = ([], [])
    while words.more():
        images.append(_image(words, len(images)))
        windows = words.table(words.whole("number of windows", 0))
        overlap = windows[:, 1].astype(np.float32)
        near = overlap >= np.float32(least)
        far = ~near & (overlap < np.float32(most))
        if (windows[near, 0] < 1).any():
            words.refuse("a window that overlaps an object has no class above 0")
        rows = np.insert(windows[:, [0, 2, 3, 4, 5]].astype(np.int64), 0, len(images) - 1, 1)
        kept[0].append(rows[near])
        rows[:, 1] = 0
        kept[1].append(rows[far])
    if not images:
        fail(DataError, CODE, f'"{path}" lists no image')
    return WindowFile(images, np.concatenate(kept[0]), np.concatenate(kept[1]))


def _image(words: _Words, number: int) -> Entry:
    """The head of one image, up to its size."""
    if words.next("#") != "#":
        words.refuse('an image begins with "#"')
    stated = words.whole("number of the image", 0)
    if stated != number:
        words.refuse(f"this image has number {stated} where {number} follows")
    entry = Entry(words.next("path"), 0, words.line)
    if words.whole("channels", 1) != 3:
        words.refuse("windows are cut out of colour images: channels must be 3")
    words.whole("height", 1)
    words.whole("width", 1)
    return entry


class _Words:
    """The words of a text file one after another, and the line of the latest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = list_lines(path, CODE)
        self._ready: list[str] = []
        self.line = 0

    def more(self) -> bool:
        """Whether a word follows."""
        while not self._ready and self.line < len(self._lines):
            self._ready = self._lines[self.line].split()[::-1]
            self.line += 1
        return bool(self._ready)

    def next(self, what: str) -> str:
        """The next word."""
        if not self.more():
            self.refuse(f"the file ends where {what} should follow")
        return self._ready.pop()

    def whole(self, what: str, least: int) -> int:
        """The next word as a number not below ``least``."""
        word = self.next(what)
        try:
            value = int(word)
        except ValueError:
            value = least - 1
        if not least <= value < _LIMIT:
            self.refuse(f'"{word}" is no {what}')
        return value

    def table(self, count: int) -> NDArray[np.float64]:
        """The windows that follow: one row each, one column for each of :data:`COLUMNS`."""
        words: list[str] = []
        while len(words) < count * len(COLUMNS):
            if not self.more():
                self.refuse(f"the file ends in the {count} windows of an image")
            words += self._ready[::-1]
            self._ready = []
        wanted = count * len(COLUMNS)
        self._ready = words[wanted:][::-1]
        try:
            found = np.array(words[:wanted], np.float64).reshape(count, len(COLUMNS))
        except ValueError as error:
            self.refuse(f"a window is not six numbers, {' '.join(COLUMNS)}: {error}")
        whole = np.delete(found, 1, 1)
        if not (np.isfinite(found).all() and (np.abs(whole) < _LIMIT).all()):
            self.refuse("a number of a window is out of range")
        if (whole != np.trunc(whole)).any():
            self.refuse("class and corners of a window must be whole numbers")
        return found

    def refuse(self, text: str) -> NoReturn:
        """Raise bad-window-file at the line of the latest word."""
        line = self._lines[self.line - 1] if self.line else ""
        span = Span(str(self._path), max(1, self.line), 1, max(1, len(line)), line)
        fail(DataError, CODE, text, span=span)
