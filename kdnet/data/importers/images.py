"""What every reader of an image collection hands over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kdnet.data.datum import Item
from kdnet.errors import DataError, fail


@dataclass(frozen=True, eq=False)
class Image:
    """One image with its label; ``name`` is its file's, ``encoded`` its compressed bytes."""

    item: Item
    name: str = ""
    encoded: bytes | None = None


@dataclass(frozen=True, eq=False)
class Images:
    """A collection: how many images it says it has, and the images one after another."""

    count: int
    images: Iterator[Image]


@dataclass(frozen=True)
class Options:
    """What to take, and how.

    Attributes:
        part: ``train`` or ``test``, where a collection has both.
        gray: Decode compressed images to one channel.
        encoded: Keep compressed images as they are.
        shuffle: Put the images of a list in a random order.
        seed: The random order's seed.
        root: Put before every path of an image list.
    """

    part: str | None = None
    gray: bool = False
    encoded: bool = False
    shuffle: bool = False
    seed: int = 0
    root: str = ""

    def accept(self, kind: str, *names: str) -> None:
        """Refuse the options that are set and mean nothing to ``kind``.

        Raises:
            DataError: option-not-applicable.
        """
        for name in ("part", "gray", "encoded", "shuffle", "root"):
            if getattr(self, name) and name not in names:
                text = f"--{name} does not apply to {kind}"
                fail(DataError, "option-not-applicable", text)


def bad_collection(path: Path, reason: str) -> NoReturn:
    """Refuse a damaged or inconsistent collection."""
    fail(DataError, "bad-collection", f'"{path}": {reason}')
