"""What a database of records is, whichever program wrote it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

Record = tuple[bytes, bytes]
"""Key and value."""


class Database(ABC):
    """Records that are only read, numbered in the order of their keys.

    Attributes:
        path: The folder.
        count: How many records there are, at least one.
    """

    path: Path
    count: int

    @abstractmethod
    def record(self, row: int) -> Record:
        """Key and value of row ``row``, from 0 to ``count`` - 1; reading on is cheap.

        Raises:
            DataError: unreadable-database.
        """

    @abstractmethod
    def contents(self) -> str:
        """A hash of what is stored.

        Raises:
            DataError: unreadable-data, unreadable-database.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the database; nothing of it can be read any more."""


class SharedHandles:
    """The databases that this process has open: neither kind may be opened twice by one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[str, list[Any]] = {}

    def open(self, path: Path, opener: Callable[[], Any]) -> Any:
        """What ``opener`` gives, or what it gave to those that have the path open."""
        key = os.path.realpath(path)
        with self._lock:
            if key not in self._open:
                self._open[key] = [opener(), 0]
            self._open[key][1] += 1
            return self._open[key][0]

    def close(self, path: Path) -> None:
        """Close a path's handle once everybody who opened it has closed it."""
        key = os.path.realpath(path)
        with self._lock:
            self._open[key][1] -= 1
            if self._open[key][1] == 0:
                self._open.pop(key)[0].close()
