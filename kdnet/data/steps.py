"""How long work tells of its progress."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int], None]
"""Hears how many steps were just done."""

Start = Callable[[int], Advance]
"""Called with the number of steps to come; what it returns hears of each step done."""


def ignore(_total: int) -> Advance:
    """A :data:`Start` that tells nobody."""
    return lambda _step: None
